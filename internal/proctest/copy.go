package proctest

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Copy copies a project to a directory, which may be there. Its history and its binaries stay behind.
func Copy(to, from string) error {
	return fs.WalkDir(os.DirFS(from), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == ".git" || path == "bin":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil // .git is a file in a linked work tree
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, path), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(filepath.Join(from, path))
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), content, info.Mode())
	})
}
