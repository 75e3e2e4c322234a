//go:build !linux && !darwin

package ttrpcx

import (
	"io/fs"
	"os"
)

// On these platforms there are no owners and modes to check: only the directory's own permissions protect a socket.

func restrictBeforeBind(uintptr) {}

func checkListening(*os.File) error { return nil }

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
