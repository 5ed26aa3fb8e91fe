// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/headgate/headgate/xds"
)

const (
	// crashLoop is how long an Envoy must have lived to be started again on the spot.
	crashLoop = 10 * time.Second
	// farewell is how long peers are told that the app has ended before Envoy's doors close. Whoever is told leaves this
	// pod out for twice as long, so nobody knocks when they do.
	farewell = xds.LeastEjection / 2
	// lastWords is what Envoy gets to answer whom it has taken in before its doors closed. What it answers itself, for an
	// app that has ended, counts as no active request. With farewell it is less than the two seconds that the kubelet grants
	// a sidecar whose app has used up the grace period; slowReaders comes after both, and may be cut short then.
	lastWords = 500 * time.Millisecond
	// slowReaders is how long Envoy may go on sending what it has of answers (up to 1 MiB of each) to clients that read slowly.
	slowReaders = 1500 * time.Millisecond
)

// Run supervises Envoy until ctx ends (SIGTERM), and serves it its configuration. When ctx ends it
// drains: it returns nil as soon as no request is under way any more, and waits for that without a
// limit of its own, because the pod's grace is the user's limit and the kubelet enforces it.
//
// An error is one of the configuration, or Envoy's own end; ExitCode tells which code to exit with.
func Run(ctx context.Context, cfg Config) error {
	rest, err := xds.Translate(cfg.workload())
	if err != nil {
		return fmt.Errorf("making the configuration at rest: %w", err)
	}
	log, admin := logr.FromContextOrDiscard(ctx), newAdmin()
	clients := newClients(cfg, admin, log)
	defer clients.close()
	bootstrap, err := xds.Bootstrap(xds.Node{ID: cfg.Namespace + "/" + cfg.Pod, Socket: socket, Ended: clients.file, IPv6: cfg.ipv6()})
	if err != nil {
		return err
	}
	server, err := dialServer(cfg)
	if err != nil {
		return err
	}
	defer server.Close()
	lis, err := listenForEnvoy(socket)
	if err != nil {
		return err
	}
	leaving, err := (&net.ListenConfig{}).Listen(ctx, "unix", leavingSocket)
	if err != nil {
		lis.Close()
		return fmt.Errorf("listening for the pod's end: %w", err)
	}
	s := &supervisor{cfg: cfg, bootstrap: string(bootstrap), socket: lis, admin: admin, clients: clients, log: log}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, &discovery{
		rest:        rest,
		server:      discoveryv3.NewAggregatedDiscoveryServiceClient(server),
		live:        s.admin.live,
		unreachable: func() bool { return server.GetState() == connectivity.TransientFailure },
		log:         s.log,
	})
	served := make(chan error, 1)
	go func() { served <- g.Serve(lis) }()
	defer func() {
		g.Stop()
		<-served
	}()
	watched, stopWatching := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		clients.watch(watched, leaving)
	}()
	defer func() {
		stopWatching()
		leaving.Close()
		<-watching
	}()
	raiseFileLimit()
	return s.supervise(ctx)
}

// ExitCode is what `headgate run` exits with: Envoy's own code where there is one, so that the
// container's status shows the truth.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return 1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()) // as shells say it
	}
	return exit.ExitCode()
}

// supervisor owns the Envoy process.
type supervisor struct {
	cfg       Config
	bootstrap string
	socket    *envoySocket
	admin     admin
	clients   *clients
	log       logr.Logger
}

// supervise starts Envoy, and starts it again at once when it ends by itself: until then the pod's
// captured ports refuse connections, and the kubelet would take seconds, later minutes. An Envoy that
// lived less than 10 s is not started again but reported: then the kubelet's back-off, restart count
// and events are the right answer.
func (s *supervisor) supervise(ctx context.Context) error {
	for {
		started := time.Now()
		ended, process, err := s.start()
		if err != nil {
			return err
		}
		select {
		case err := <-ended:
			lived := time.Since(started)
			s.log.Info("Envoy ended by itself", "lived", lived.Round(time.Millisecond).String(), "status", fmt.Sprint(err))
			if lived < crashLoop {
				return endedByItself(err)
			}
		case <-ctx.Done():
			s.stop(context.WithoutCancel(ctx), process, ended)
			return nil
		}
	}
}

func endedByItself(err error) error {
	if err == nil {
		return errors.New("running Envoy: it ended without being told to")
	}
	return fmt.Errorf("running Envoy: %w", err)
}

// start starts Envoy. Its end is told on the channel, as exec.Cmd.Wait does.
func (s *supervisor) start() (<-chan error, *os.Process, error) {
	if err := s.clients.prepare(); err != nil {
		return nil, nil, err
	}
	args := []string{
		"--config-yaml", s.bootstrap, // JSON is YAML; there is no file system to write to
		"--concurrency", strconv.Itoa(s.cfg.Concurrency),
		"--log-level", s.cfg.LogLevel,
	}
	args = append(args, xds.Flags()...)
	if s.cfg.LogLevel == defaultLogLevel {
		// A field of Envoy's API that we set is called work-in-progress, once for each cluster and port.
		args = append(args, "--component-log-level", "misc:error")
	}
	cmd := exec.Command(s.cfg.Envoy, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// Signals to our process group are ours to translate; and should we die, Envoy must not stay and
	// hold its ports.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// Pdeathsig is sent when the thread that started the child ends, so it must not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			s.socket.pid.Store(int64(cmd.Process.Pid))
		}
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, nil, fmt.Errorf("starting Envoy: %w", err)
	}
	return ended, cmd.Process, nil
}

// stop ends Envoy as soon as it forwards nothing any more and no peer is left. The app's containers have ended before
// (this is a native sidecar), so what may be under way are requests to peers.
//
// A client's connection that was silent while the pod was leaving is still open, because Envoy says `connection: close`
// only with a response. Natively the app's end has closed it, and the client asks another pod; with an Envoy that lives on,
// it would be answered 503. So nothing is waited for that nobody needs, and Envoy is killed: the kernel closes what is open.
func (s *supervisor) stop(ctx context.Context, envoy *os.Process, ended <-chan error) {
	if s.needed(ctx) && s.drain(ctx, ended) {
		return
	}
	_ = envoy.Kill()
	<-ended
}

// needed says that somebody would miss Envoy.
func (s *supervisor) needed(ctx context.Context) bool {
	return s.hasActive(ctx) || s.hasPeers(ctx) || s.hasBuffered(ctx)
}

// drain waits until nobody needs Envoy. It is true when Envoy ended meanwhile.
func (s *supervisor) drain(ctx context.Context, ended <-chan error) bool {
	s.clients.end(ctx)
	if err := s.admin.drain(ctx); err != nil {
		s.log.Info("Could not drain Envoy", "error", err.Error())
	}
	return s.hasPeers(ctx) && wait(farewell, ended) || s.waitUntilIdle(ctx, ended) ||
		s.hasPeers(ctx) && s.closeDoors(ctx, ended) || s.waitUntilSent(ctx, ended)
}

// waitUntilSent waits, but not for ever, until clients have the answers that the app has given. They may read slowly, or have
// gone without a word. It is true when Envoy ended meanwhile.
func (s *supervisor) waitUntilSent(ctx context.Context, ended <-chan error) bool {
	deadline := time.Now().Add(slowReaders)
	return waitWhile(func() bool { return s.hasBuffered(ctx) && time.Now().Before(deadline) }, 50*time.Millisecond, ended)
}

func (s *supervisor) hasBuffered(ctx context.Context) bool {
	n, err := s.admin.buffered(ctx)
	return err == nil && n > 0
}

// hasPeers says that sidecars of the other revision may still send requests. Those that know of the pod's end, because the
// server told them when it was deleted, have closed their connections.
func (s *supervisor) hasPeers(ctx context.Context) bool {
	n, err := s.admin.peers(ctx)
	return err != nil || n > 0
}

// closeDoors lets Envoy answer whom it has taken in, and nobody else. It is true when Envoy ended meanwhile.
//
// Peers that have not heard of the end still come. Envoy's end cuts what it has just taken, which nobody may send again;
// a connection that is refused costs nothing, because the peer then asks another pod. So the doors close first. Closing
// them resets connections that wait to be taken, perhaps with a request on them; so peers are sent away before that.
func (s *supervisor) closeDoors(ctx context.Context, ended <-chan error) bool {
	if err := s.admin.closeListeners(ctx); err != nil {
		s.log.Info("Could not close Envoy's listeners", "error", err.Error())
	}
	return wait(lastWords, ended) || s.waitUntilIdle(ctx, ended)
}

// wait waits that long, or until Envoy has ended, and then it is true.
func wait(d time.Duration, ended <-chan error) bool {
	select {
	case <-time.After(d):
		return false
	case <-ended:
		return true
	}
}

// waitUntilIdle waits until Envoy forwards nothing, or does not say. It is true when Envoy ended meanwhile.
func (s *supervisor) waitUntilIdle(ctx context.Context, ended <-chan error) bool {
	return waitWhile(func() bool { return s.hasActive(ctx) }, 100*time.Millisecond, ended)
}

func (s *supervisor) hasActive(ctx context.Context) bool {
	n, err := s.admin.active(ctx)
	return err == nil && n > 0
}

// waitWhile asks now and then whether Envoy is still busy. It is true when Envoy ended meanwhile.
func waitWhile(busy func() bool, every time.Duration, ended <-chan error) bool {
	for busy() {
		if wait(every, ended) {
			return true
		}
	}
	return false
}

// raiseFileLimit lets Envoy use as many file descriptors as the container may: each connection takes
// two, and a container runtime may set the soft limit to 1024. (Go raises its own, but gives children
// the old one back, unless it was set explicitly.)
func raiseFileLimit() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // without it Envoy just has fewer
	}
}
