// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"os"
	"time"

	"github.com/headgate/headgate/e2e/cluster/internal/network"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
	"github.com/headgate/headgate/e2e/cluster/internal/process"
)

// endTimeout is how long killed processes may take to go; one that hangs in the kernel
// needs more than this command.
const endTimeout = 30 * time.Second

// Down takes a cluster down, whatever state it is in. What is not there is no error.
func Down(name string) error {
	if err := errors.Join(plan.CheckName(name), needRoot()); err != nil {
		return err
	}
	c := plan.Cluster{Name: name}
	unlock, err := lock(c.Dir())
	if err != nil {
		return err
	}
	defer unlock()
	if err := remove(c); err != nil {
		return err
	}
	if err := os.Remove(c.Dir()); err != nil {
		return err
	}
	return restoreMachine()
}

// remove removes all there is of a cluster but the folder itself, which is locked. Only
// the name of c counts.
func remove(c plan.Cluster) error {
	if err := owner(c).End(endTimeout); err != nil {
		return err
	}
	if err := unmountBelow(c.Dir()); err != nil {
		return err
	}
	// Before the folder: it says which of the common folders' files are this cluster's.
	if err := errors.Join(removeShimSockets(c), removeCNIResults(c), removeLogLinks(c), removeCgroups(c)); err != nil {
		return err
	}
	if err := network.Delete(c); err != nil {
		return err
	}
	return empty(c.Dir())
}

func owner(c plan.Cluster) process.Owner {
	return process.Owner{Namespace: network.Path(c), Cgroup: c.Cgroup(), Dir: c.Dir()}
}
