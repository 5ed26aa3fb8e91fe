// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Owner tells the processes of one cluster from all others.
type Owner struct {
	// Namespace is the file that the network namespace is mounted on. Every process
	// in this namespace belongs to the cluster: its parts and shims, pods with
	// hostNetwork, and clients that were started in it.
	Namespace string
	// Cgroup is the parent of the containers' control groups. Pods have network
	// namespaces of their own, and lose their parent with the shim.
	Cgroup string
	// Dir is the cluster's folder. Its programs name files there in their arguments, which
	// still finds them when the namespace's file was removed by hand.
	Dir string
}

// facts is what the kernel says about a process.
type facts struct {
	namespace inode
	cgroup    string // the text of /proc/PID/cgroup
	args      string // the text of /proc/PID/cmdline, separated by NUL
}

// inode identifies a file, and thereby a namespace. The zero inode is none.
type inode struct{ dev, ino uint64 }

// End kills the cluster's processes and returns when none is left. Containers may be
// started while it looks, so it looks again until it finds nothing.
func (o Owner) End(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		pids, err := o.Processes()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("ending processes %v: still there after %s", pids, timeout)
		}
		for _, pid := range pids {
			if err := o.kill(pid); err != nil {
				return err
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Processes lists the ids of the cluster's processes, zombies left out, the caller too.
func (o Owner) Processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	namespace := inodeOf(o.Namespace)
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if o.owns(namespace, read(pid)) && running(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// owns decides from the facts; namespace is what o.Namespace is now.
func (o Owner) owns(namespace inode, f facts) bool {
	switch {
	case namespace != inode{} && f.namespace == namespace:
		return true
	case inCgroup(f.cgroup, o.Cgroup):
		return true
	}
	args := strings.Split(f.args, "\x00")
	program := filepath.Base(args[0])
	isPart := program == "kubernetes" || program == "containerd" || strings.HasPrefix(program, "containerd-shim")
	// Others, an editor or a client, may look at the files.
	return isPart && strings.Contains(f.args, o.Dir+"/")
}

// kill ends one process for certain. The descriptor pins the process, so what is checked
// after it was opened holds for what the signal reaches, even if the id is used again.
func (o Owner) kill(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !o.owns(inodeOf(o.Namespace), read(pid)) {
		return nil
	}
	err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("killing process %d: %w", pid, err)
	}
	return nil
}

// End kills this very process and returns when it is gone.
func (r Record) End(timeout time.Duration) error {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil || !r.Alive() {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	for deadline := time.Now().Add(timeout); r.Alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("ending process %d: still there after %s", r.PID, timeout)
		}
	}
	return nil
}

// read collects the facts about a process; those of one that has gone are empty.
func read(pid int) facts {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	return facts{namespace: inodeOf(filepath.Join(dir, "ns", "net")), cgroup: string(cgroup), args: string(bytes.TrimRight(args, "\x00"))}
}

func running(pid int) bool {
	s, err := readStat(pid)
	return err == nil && s.state != 'Z' && s.state != 'X'
}

// inCgroup reads /proc/PID/cgroup, lines of "id:controllers:path", see cgroups(7).
func inCgroup(text, parent string) bool {
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		_, path, _ := strings.Cut(rest, ":")
		if path == parent || strings.HasPrefix(path, parent+"/") {
			return true
		}
	}
	return false
}

func inodeOf(path string) inode {
	info, err := os.Stat(path)
	if err != nil {
		return inode{}
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}
	}
	return inode{dev: s.Dev, ino: s.Ino}
}
