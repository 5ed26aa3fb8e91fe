// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// envoySocket accepts connections from Envoy only. Whoever is in the pod's network namespace can
// connect to an abstract socket, the app included, and what is served there carries the pod's
// identity to the server. The kernel tells who connects.
type envoySocket struct {
	*net.UnixListener
	// pid is Envoy's process; 0 while there is none, and then nobody is let in.
	pid atomic.Int64
}

func listenForEnvoy(name string) (*envoySocket, error) {
	lis, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening for Envoy: %w", err)
	}
	return &envoySocket{UnixListener: lis}, nil
}

// Accept implements net.Listener.
func (s *envoySocket) Accept() (net.Conn, error) {
	for {
		conn, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if pid, err := peerProcess(conn); err == nil && pid > 0 && s.isEnvoy(pid) {
			return conn, nil
		}
		conn.Close()
	}
}

// isEnvoy waits a little for the number of a process that was started just now: Envoy may be faster
// than the goroutine that started it.
func (s *envoySocket) isEnvoy(pid int64) bool {
	for range 10 {
		if s.pid.Load() == pid {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// peerProcess is the process that connected; 0 when it is in another process namespace than ours, as
// other containers are.
func peerProcess(conn *net.UnixConn) (int64, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("asking who connected: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, fmt.Errorf("asking who connected: %w", err)
	}
	if credErr != nil {
		return 0, fmt.Errorf("asking who connected: %w", credErr)
	}
	return int64(cred.Pid), nil
}
