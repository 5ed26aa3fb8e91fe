// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/headgate/headgate/xds"
)

const (
	// leavingSocket is where `headgate drain` tells `headgate run` that the pod is ending. As with the other socket, whoever is
	// in the pod can connect; what it starts is a look at the pod's own ports.
	leavingSocket = "@headgate/leaving"
	// sharedMemory is the one place in a pod that can be written to without a volume. Where it can't, a pod that has ended has
	// no way to close clients' unused connections.
	sharedMemory = "/dev/shm"
	// lookAtPorts is how often the app's ports are looked at while the pod is ending.
	lookAtPorts = 100 * time.Millisecond
)

// clients closes the connections of clients when the app has ended. Natively the app's end does: they ask another pod then. An
// Envoy that lives longer, because peers or long requests need it, would answer them 503.
type clients struct {
	admin admin
	// ports are the captured ports on which Envoy speaks HTTP. On others it closes a connection when the app does.
	ports []uint32
	// file is the one of xds.Node.Ended; empty when there is none.
	file string
	log  logr.Logger
}

func newClients(cfg Config, a admin, log logr.Logger) *clients {
	c := &clients{admin: a, log: log}
	for _, p := range cfg.Injection.Ports {
		if protocolOf(p) != xds.TCP {
			c.ports = append(c.ports, uint32(p.Port))
		}
	}
	dir, err := os.MkdirTemp(sharedMemory, "headgate-")
	if err == nil {
		c.file = filepath.Join(dir, "ended")
		err = c.prepare()
	}
	if err != nil {
		log.Info("Can't close unused connections when the pod ends", "error", err.Error())
		c.close()
		c.file = ""
	}
	return c
}

// prepare puts the file where Envoy looks for it. Without its directory Envoy does not start, and the app may have cleared it away.
func (c *clients) prepare() error {
	if c.file == "" {
		return nil
	}
	if _, err := os.Stat(c.file); err == nil {
		return nil
	}
	dir := filepath.Dir(c.file)
	err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755), os.WriteFile(c.file, []byte("0"), 0o644))
	if err != nil {
		return fmt.Errorf("preparing %s: %w", c.file, err)
	}
	return nil
}

func (c *clients) close() {
	if c.file != "" {
		_ = os.RemoveAll(filepath.Dir(c.file)) // it goes with the pod
	}
}

// refuse makes Envoy close new connections to a port.
func (c *clients) refuse(ctx context.Context, port uint32) {
	if _, err := c.admin.call(ctx, http.MethodPost, "/runtime_modify?"+xds.EndedKey(port)+"=100"); err != nil {
		c.log.Info("Could not refuse clients' connections", "port", port, "error", err.Error())
	}
}

// hangUp makes Envoy close all clients' connections as soon as they are unused.
func (c *clients) hangUp() {
	if c.file == "" {
		return
	}
	next := c.file + ".next"
	if err := errors.Join(os.WriteFile(next, []byte("1"), 0o644), os.Rename(next, c.file)); err != nil { // Envoy sees a file that is moved
		c.log.Info("Could not close clients' connections", "error", err.Error())
	}
}

// end is for when the app has ended.
func (c *clients) end(ctx context.Context) {
	for _, p := range c.ports {
		c.refuse(ctx, p)
	}
	c.hangUp()
}

// watch waits until somebody says that the pod is ending. From then on clients are refused where nobody listens any more, and hung
// up on when nobody listens anywhere: another container's clients are still served. An app may stop listening when it is
// told to end, and finish what is under way for as long as the pod's grace lasts.
func (c *clients) watch(ctx context.Context, leaving net.Listener) {
	conn, err := leaving.Accept()
	if err != nil {
		return // the end of Run
	}
	open, err := listening()
	conn.Close()
	if err != nil {
		c.log.Info("Can't tell when the app stops listening", "error", err.Error())
		return
	}
	left := slices.DeleteFunc(slices.Clone(c.ports), func(p uint32) bool { return !open[p] })
	tick := time.NewTicker(lookAtPorts)
	defer tick.Stop()
	for len(left) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if open, err = listening(); err != nil {
			return
		}
		left = slices.DeleteFunc(left, func(p uint32) bool {
			if open[p] {
				return false
			}
			c.refuse(ctx, p)
			return true
		})
		if len(left) == 0 {
			c.hangUp()
		}
	}
}

// sayLeaving tells `headgate run`, and waits until it has seen which ports are open.
func sayLeaving(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", leavingSocket)
	if err != nil {
		return fmt.Errorf("telling headgate run: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return fmt.Errorf("telling headgate run: %w", err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("telling headgate run: %w", err)
	}
	return nil
}

// listening are the ports that somebody in the pod listens on.
func listening() (map[uint32]bool, error) {
	ports := map[uint32]bool{}
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if name == "tcp6" && errors.Is(err, os.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("reading the pod's ports: %w", err)
		}
		readListening(bufio.NewScanner(f), ports)
		f.Close()
	}
	return ports, nil
}

// readListening reads as far as the sockets that listen go. They come first, and the kernel makes only what is read: a pod
// may have many connections.
func readListening(lines *bufio.Scanner, ports map[uint32]bool) {
	const localAddress, state, listens = 1, 3, "0A"
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) <= state || fields[state] != listens {
			return
		}
		_, port, _ := strings.Cut(fields[localAddress], ":")
		if n, err := strconv.ParseUint(port, 16, 16); err == nil {
			ports[uint32(n)] = true
		}
	}
}
