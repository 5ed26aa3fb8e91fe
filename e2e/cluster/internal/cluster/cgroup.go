// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// cgroupRoot is where the hierarchies of control groups are: version 1 has one per controller
// below, version 2 is a single one, and a machine may have both.
const cgroupRoot = "/sys/fs/cgroup"

// hierarchies lists the roots of all hierarchies of this machine.
func hierarchies() ([]string, error) {
	if isCgroup(cgroupRoot, unix.CGROUP2_SUPER_MAGIC) {
		return []string{cgroupRoot}, nil
	}
	below, err := filepath.Glob(filepath.Join(cgroupRoot, "*"))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(below, func(dir string) bool {
		return !isCgroup(dir, unix.CGROUP_SUPER_MAGIC) && !isCgroup(dir, unix.CGROUP2_SUPER_MAGIC)
	}), nil
}

// isCgroup says whether a folder is on a file system of this type.
func isCgroup(dir string, magic int64) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && int64(fs.Type) == magic //nolint:unconvert // Type is 32 bits wide on s390x
}

// createCgroups makes the group below which all containers of the cluster go. The kubelet measures
// it only if it is there when the kubelet starts.
func createCgroups(c plan.Cluster) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		group := filepath.Join(root, c.Cgroup())
		if err := os.MkdirAll(group, 0o755); err != nil {
			return err
		}
		if err := favour(group); err != nil {
			return err
		}
	}
	return nil
}

// favour gives a group more of the processors than anything else on the machine gets, and no limit. Pods of
// tests request next to nothing, so that a build beside them would starve them all, and be counted as
// requests that they did not answer.
func favour(group string) error {
	for file, weight := range map[string]string{
		"cpu.shares": "16384", // version 1; 1024 is everybody's
		"cpu.weight": "1600",  // version 2; 100 is everybody's
	} {
		path := filepath.Join(group, file)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue // another version's, or not the hierarchy of the processors
		}
		if err := os.WriteFile(path, []byte(weight), 0); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the cluster's group and those below. No process may be left in them.
func removeCgroups(c plan.Cluster) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		var groups []string
		err := filepath.WalkDir(filepath.Join(root, c.Cgroup()), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		errs = append(errs, err)
		for _, group := range slices.Backward(groups) {
			errs = append(errs, removeFile(group))
		}
	}
	return errors.Join(errs...)
}
