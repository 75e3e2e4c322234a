//go:build !linux

package ttrpcx

func overflowUID() int64 { return -1 }

func overflowGID() int64 { return -1 }
