//go:build !linux && !darwin

package ttrpcx

import (
	"io/fs"
	"os"
)

// Here the directory's own permissions are all that guards a socket: there are no owners and modes to check.

func restrictBeforeBind(uintptr) {}

func listening(*os.File) error { return nil }

func unsafeDir(info fs.FileInfo) string {
	if !info.IsDir() {
		return "is not a directory"
	}
	return ""
}

func ownedByUs(fs.FileInfo) bool { return true }

type fileLock struct{}

func acquire(string) (*fileLock, error) { return &fileLock{}, nil }

func (*fileLock) release() {}
