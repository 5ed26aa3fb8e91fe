// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/e2e/cluster/internal/network"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// resolvConf makes a client resolve names as a pod of the default namespace does.
const resolvConf = "resolv.client.conf"

// Exec replaces this process by a command in the cluster's network. It sees the machine's files,
// but for the resolver's configuration, which is the cluster's.
func Exec(c plan.Cluster, args []string) error {
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := network.Enter(c); err != nil {
		return err
	}
	if err := useResolver(c.Path(resolvConf)); err != nil {
		return fmt.Errorf("setting up names in cluster %q: %w", c.Name, err)
	}
	return syscall.Exec(program, args, append(syscall.Environ(), "KUBECONFIG="+c.Kubeconfig()))
}

// useResolver lays a file over the resolver's configuration, for the calling thread and what
// it executes.
func useResolver(path string) error {
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	return unix.Mount(path, target, "", unix.MS_BIND, "")
}
