// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Spec is a process to start.
type Spec struct {
	Args []string
	// Dir is its working directory.
	Dir string
	// Log gets both its outputs, appended.
	Log string
	// Env is its whole environment: a proxy setting of the caller's, say, would be
	// disastrous.
	Env []string
}

// Exited is how a process that was started ended. It is sent once.
type Exited <-chan error

// Start runs the process detached: in a session of its own, with its output in a file, so
// that neither the end of the caller nor its terminal ends it. It is started by the
// calling thread and inherits that thread's network namespace.
func Start(spec Spec) (Record, Exited, error) {
	if err := os.MkdirAll(filepath.Dir(spec.Log), 0o755); err != nil {
		return Record{}, nil, err
	}
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Record{}, nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(spec.Args[0], spec.Args[1:]...)
	cmd.Dir = spec.Dir
	cmd.Env = spec.Env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Record{}, nil, fmt.Errorf("starting %s: %w", spec.Args[0], err)
	}
	record, err := Observe(cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return Record{}, nil, fmt.Errorf("observing %s just started: %w", spec.Args[0], err)
	}
	exited := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = fmt.Errorf("exit status 0")
		}
		exited <- err
	}()
	return record, exited, nil
}

// Tail returns the last lines of a log, to be shown with an error.
func Tail(path string, lines int) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = file.Close() }()
	const enough = 16 << 10
	if info, err := file.Stat(); err == nil && info.Size() > enough {
		_, _ = file.Seek(-enough, io.SeekEnd)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
