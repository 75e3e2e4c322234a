package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fullstorydev/grpcurl"
	"go.yaml.in/yaml/v3"
)

// bufSource reads a buf image (a FileDescriptorSet with more in it), or compiles the modules of a directory: those that
// buf.yaml or buf.work.yaml names, or else the directory itself. Modules of the registry are not fetched. An image has
// them.
func bufSource(name string) (grpcurl.DescriptorSource, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return grpcurl.DescriptorSourceFromProtoSets(name)
	}
	modules, err := bufModules(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, module := range modules {
		err := filepath.WalkDir(module, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".proto" {
				path, err = filepath.Rel(module, path)
				files = append(files, filepath.ToSlash(path))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no .proto files", name)
	}
	source, err := grpcurl.DescriptorSourceFromProtoFiles(modules, files...)
	if err != nil {
		return nil, fmt.Errorf("%w (if a module of the registry is missing: `buf build %s -o image.binpb` "+
			"and -buf image.binpb)", err, name)
	}
	return source, nil
}

// bufModules returns the directories that imports are relative to.
func bufModules(dir string) ([]string, error) {
	var config struct {
		Modules     []struct{ Path string } // buf.yaml v2
		Directories []string                // buf.work.yaml
	}
	for _, name := range []string{"buf.yaml", "buf.work.yaml"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = yaml.Unmarshal(b, &config)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
	}
	paths := config.Directories
	for _, m := range config.Modules {
		paths = append(paths, m.Path)
	}
	if len(paths) == 0 {
		return []string{dir}, nil
	}
	for i, p := range paths {
		paths[i] = filepath.Join(dir, p)
	}
	return paths, nil
}
