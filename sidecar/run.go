// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"errors"
	"fmt"
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
	// a sidecar whose app has used up the grace period.
	lastWords = 500 * time.Millisecond
	// termination is what Envoy gets to end by itself; it took 1.7 s (ENVOY.md §11).
	termination = 3 * time.Second
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
	bootstrap, err := xds.Bootstrap(xds.Node{ID: cfg.Namespace + "/" + cfg.Pod, Socket: socket, IPv6: cfg.ipv6()})
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
	s := &supervisor{cfg: cfg, bootstrap: string(bootstrap), socket: lis, admin: newAdmin(), log: logr.FromContextOrDiscard(ctx)}
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

// stop drains Envoy, waits until it forwards nothing any more, and ends it. The app's containers have
// ended before (this is a native sidecar), so what may be under way are requests to peers.
//
// Peers that have not heard of the end still come. SIGTERM cuts what Envoy has just taken, which nobody may send again;
// a connection that is refused costs nothing, because the peer then asks another pod. So the doors close first. Closing
// them resets connections that wait to be taken, perhaps with a request on them; so peers are sent away before that.
func (s *supervisor) stop(ctx context.Context, envoy *os.Process, ended <-chan error) {
	if err := s.admin.drain(ctx); err != nil {
		s.log.Info("Could not drain Envoy", "error", err.Error())
	}
	if wait(farewell, ended) || s.waitUntilIdle(ctx, ended) {
		return
	}
	if err := s.admin.closeListeners(ctx); err != nil {
		s.log.Info("Could not close Envoy's listeners", "error", err.Error())
	}
	if wait(lastWords, ended) || s.waitUntilIdle(ctx, ended) {
		return
	}
	_ = envoy.Signal(syscall.SIGTERM)
	if !wait(termination, ended) {
		_ = envoy.Kill()
		<-ended
	}
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
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, err := s.admin.active(ctx); err != nil || n == 0 {
			return false
		}
		select {
		case <-tick.C:
		case <-ended:
			return true
		}
	}
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
