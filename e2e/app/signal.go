// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// runSignal sends a signal to a container's processes of a name: signal CONTAINER-ID PROGRAM SIGNAL. It must
// see the node's processes, so its own pod is privileged and shares their namespace.
func runSignal(_ context.Context, args []string) error {
	signals := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "TERM": syscall.SIGTERM}
	if len(args) != 3 || len(args[0]) < 12 || signals[args[2]] == 0 {
		return fmt.Errorf("want CONTAINER-ID PROGRAM KILL|STOP|CONT|TERM, got %q", args)
	}
	processes, err := findProcesses("/proc", args[0], args[1])
	if err != nil {
		return err
	}
	// What is gone needs not be woken.
	if len(processes) == 0 && args[2] != "CONT" {
		return fmt.Errorf("container %s has no process %q", args[0], args[1])
	}
	for _, pid := range processes {
		if err := syscall.Kill(pid, signals[args[2]]); err != nil {
			return fmt.Errorf("sending %s to process %d: %w", args[2], pid, err)
		}
	}
	return nil
}

// runDigest prints the SHA-256 of a file as a container's processes of a name see it: digest CONTAINER-ID PROGRAM PATH. Like
// runSignal, it must see the node's processes.
func runDigest(_ context.Context, args []string) error {
	if len(args) != 3 || len(args[0]) < 12 {
		return fmt.Errorf("want CONTAINER-ID PROGRAM PATH, got %q", args)
	}
	processes, err := findProcesses("/proc", args[0], args[1])
	if err != nil {
		return err
	}
	if len(processes) == 0 {
		return fmt.Errorf("container %s has no process %q", args[0], args[1])
	}
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(processes[0]), "root", args[2]))
	if err != nil {
		return err
	}
	fmt.Printf("%x\n", sha256.Sum256(content))
	return nil
}

// findProcesses lists the processes in a container's control group whose program has this name.
func findProcesses(proc, container, program string) ([]int, error) {
	groups, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "cgroup"))
	if err != nil {
		return nil, err
	}
	var found []int
	for _, path := range groups {
		group, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(group), container) {
			continue // it has ended, or is another container's
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(string(line), "\x00")
		if filepath.Base(name) != program {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", path, err)
		}
		found = append(found, pid)
	}
	return found, nil
}
