//go:build !linux && !darwin

package ttrpcx

import (
	"io/fs"
	"os"
	"path/filepath"
)

// On these platforms there are no owners and modes to check: only the directory's own permissions protect a socket.

func restrictBeforeBind(uintptr) {}

func checkListening(*os.File) error { return nil }

func openDir(path string, mode fs.FileMode) (prefix string, dir *os.File, err error) {
	return path, nil, os.MkdirAll(filepath.Clean(path), mode)
}

func owner(fs.FileInfo) uint32 { return uint32(os.Getuid()) }

type fileLock struct{}

func acquire(string) (*fileLock, error) { return &fileLock{}, nil }

func (*fileLock) release() {}
