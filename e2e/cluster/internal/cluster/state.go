// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/e2e/cluster/internal/network"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// state is what the folder of a cluster remembers.
type state struct {
	// Slot is claimed as soon as the file is there.
	Slot int `json:"slot"`
	// Prepared means that keys, configuration and namespace were all made.
	Prepared bool `json:"prepared"`
	// Kubernetes is the path of the binary that runs.
	Kubernetes string `json:"kubernetes"`
	// Version is its minor version.
	Version string `json:"version"`
}

// cluster is the cluster of this name that the state is of.
func (s state) cluster(name string) plan.Cluster {
	return plan.Cluster{Name: name, Slot: s.Slot, Kubernetes: s.Version}
}

const stateFile = "cluster.json"

// load reads a cluster's state. One that doesn't exist, or is damaged, is the zero state.
func load(name string) (state, error) {
	var s state
	data, err := os.ReadFile(plan.Cluster{Name: name}.Path(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if json.Unmarshal(data, &s) != nil {
		s = state{}
	}
	return s, nil
}

func (s state) save(name string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := plan.Cluster{Name: name}.Path(stateFile)
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Find returns a cluster that was brought up before.
func Find(name string) (plan.Cluster, error) {
	if err := plan.CheckName(name); err != nil {
		return plan.Cluster{}, err
	}
	s, err := load(name)
	if err != nil {
		return plan.Cluster{}, err
	}
	c := s.cluster(name)
	if !s.Prepared || !network.Exists(c) {
		return plan.Cluster{}, fmt.Errorf("there is no cluster %q; bring it up first", name)
	}
	return c, nil
}

// Names lists the clusters of which anything is left: a folder, a namespace or an interface.
func Names() ([]string, error) {
	var names []string
	folders, err := filepath.Glob(filepath.Join(plan.Home, "*"))
	if err != nil {
		return nil, err
	}
	namespaces, err := filepath.Glob(network.Path(plan.Cluster{Name: "*"}))
	if err != nil {
		return nil, err
	}
	for _, path := range folders {
		names = append(names, filepath.Base(path))
	}
	for _, path := range namespaces {
		names = append(names, strings.TrimPrefix(filepath.Base(path), plan.Cluster{}.Namespace()))
	}
	names = slices.DeleteFunc(names, func(name string) bool { return plan.CheckName(name) != nil })
	slices.Sort(names)
	return slices.Compact(names), nil
}

// claim gives a new cluster of a minor version of Kubernetes its slot: the first that neither another cluster
// nor an interface of the machine has.
func claim(name, version string) (plan.Cluster, error) {
	unlock, err := lock(plan.Home)
	if err != nil {
		return plan.Cluster{}, err
	}
	defer unlock()
	if err := rememberMachine(); err != nil {
		return plan.Cluster{}, err
	}
	names, err := Names()
	if err != nil {
		return plan.Cluster{}, err
	}
	taken := map[int]bool{}
	for _, other := range names {
		if other == name {
			continue
		}
		s, err := load(other)
		if err != nil {
			return plan.Cluster{}, err
		}
		taken[s.Slot] = true
	}
	for slot := range plan.CandidateSlots(name) {
		c := plan.Cluster{Name: name, Slot: slot, Kubernetes: version}
		free, err := network.Free(c)
		if err != nil {
			return plan.Cluster{}, err
		}
		if !taken[slot] && free {
			return c, state{Slot: slot}.save(name)
		}
	}
	return plan.Cluster{}, fmt.Errorf("placing cluster %q: all of 172.31.0.0/16 is in use", name)
}

// lock makes the folder if need be and holds it until unlock. Whoever waited while it was
// removed starts over with the new one.
func lock(dir string) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		file, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("locking %q: %w", dir, err)
		}
		held, heldErr := file.Stat()
		now, nowErr := os.Stat(dir)
		if heldErr == nil && nowErr == nil && os.SameFile(held, now) {
			return func() { _ = file.Close() }, nil
		}
		_ = file.Close()
	}
}
