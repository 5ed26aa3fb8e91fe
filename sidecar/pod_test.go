// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/sidecar/capture"
)

// The addresses of the pod, of the other revision's pod (which lives in the same namespace), and of the
// client. They exist only in namespaces that the test makes.
const (
	podIP    = "192.0.2.1"
	peerIP   = "192.0.2.3"
	clientIP = "192.0.2.2"
	// isPod is set in the process that plays the pod.
	isPod = "HEADGATE_TEST_POD"
)

// inPod runs the calling test again in a process of its own, in a new network namespace that plays the
// pod, and reports there (true) whether to go on. The parent only relays the result.
func inPod(t *testing.T) bool {
	t.Helper()
	if os.Getenv(isPod) != "" {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the command ip (package iproute2), to make network namespaces")
	}
	envoy := findEnvoy(t)
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), isPod+"="+envoy)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	t.Logf("in the pod:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// findEnvoy skips the test where there is none.
func findEnvoy(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("HEADGATE_ENVOY"); path != "" {
		return path
	}
	// Not everything below .cache: image builders keep whole file systems there for a while.
	found := ""
	for _, pattern := range []string{"../.cache/envoy*/envoy", "../.cache/envoy*/*/*/envoy"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				found, _ = filepath.Abs(path)
			}
		}
	}
	if found == "" {
		t.Skip("needs Envoy: set HEADGATE_ENVOY, or run sidecar/testdata/get-envoy.sh")
	}
	return found
}

// pod is the namespace this process lives in, with everything around it.
type pod struct {
	t   *testing.T
	cfg Config
	// client dials from outside the pod.
	client *http.Client
	// ended gets what Run returns.
	ended chan error
	stop  context.CancelFunc
	// app is what listens on 8080.
	app *http.Server
}

// newPod sets up the network, the redirects, the app (on 8080 and 9000), and the other revision's
// sidecar, played by a server that answers "peer".
func newPod(t *testing.T) *pod {
	t.Helper()
	p := &pod{t: t, ended: make(chan error, 1)}
	client := fmt.Sprintf("hgtest-%d", os.Getpid())
	p.ip("netns", "add", client)
	t.Cleanup(func() { p.ip("netns", "delete", client) })
	p.ip("link", "set", "lo", "up")
	p.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", client)
	p.ip("address", "add", podIP+"/24", "dev", "eth0")
	p.ip("address", "add", peerIP+"/24", "dev", "eth0")
	p.ip("link", "set", "eth0", "up")
	p.ip("-n", client, "address", "add", clientIP+"/24", "dev", "eth0")
	p.ip("-n", client, "link", "set", "eth0", "up")
	p.client = clientIn(t, client)

	injection := v1alpha1.Injection{Workload: "web", Revision: "v1", Ports: []v1alpha1.CapturedPort{
		{Port: 8080, Protocol: v1alpha1.ProtocolAuto, Alias: 15620}, {Port: 9000, Protocol: v1alpha1.ProtocolTCP},
	}}
	if err := capture.Apply(capture.Rules(injection)); err != nil {
		t.Fatal(err)
	}
	p.app = p.serve(podIP+":8080", "local")
	p.echo(podIP + ":9000")
	p.serve(peerIP+":15601", "peer")
	p.cfg = Config{
		Injection: injection, Namespace: "shop", Pod: "web-1",
		PodIPs: []netip.Addr{netip.MustParseAddr(podIP)},
		Envoy:  os.Getenv(isPod), LogLevel: "warning", Concurrency: 1,
	}
	return p
}

// runningPod is one whose sidecar is ready, beside a control plane that says nothing yet.
func runningPod(t *testing.T) *pod {
	t.Helper()
	p := newPod(t)
	newControlPlane(t, &p.cfg)
	p.run(logContext(t))
	eventually(t, "ready", 15*time.Second, p.ready)
	return p
}

// connect is a connection from outside the pod.
func (p *pod) connect(address string) net.Conn {
	p.t.Helper()
	c, err := p.dial(address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

func (p *pod) dial(address string) (net.Conn, error) {
	return p.client.Transport.(*http.Transport).DialContext(p.t.Context(), "tcp", address)
}

func (p *pod) ip(args ...string) {
	p.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		p.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// serve answers every request with body; a path of /slow first waits until the client goes away or
// a second has passed.
func (p *pod) serve(address, body string) *http.Server {
	p.t.Helper()
	lis, err := net.Listen("tcp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			sleep(r.Context(), time.Second)
		}
		if r.URL.Path == "/large" {
			_, _ = w.Write(make([]byte, large))
		}
		fmt.Fprint(w, body)
	})}
	go s.Serve(lis)
	p.t.Cleanup(func() { s.Close() })
	return s
}

// large is more than what the buffers on the way of an answer take.
const large = 8 << 20

// echo sends back whatever arrives.
func (p *pod) echo(address string) {
	p.t.Helper()
	lis, err := net.Listen("tcp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { lis.Close() })
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

// clientIn is an HTTP client whose connections start in another namespace, on a thread that is never
// used again.
func clientIn(t *testing.T, netns string) *http.Client {
	t.Helper()
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		type result struct {
			conn net.Conn
			err  error
		}
		done := make(chan result, 1)
		go func() {
			runtime.LockOSThread()
			handle, err := os.Open("/run/netns/" + netns)
			if err != nil {
				done <- result{nil, err}
				return
			}
			defer handle.Close()
			if err := unix.Setns(int(handle.Fd()), unix.CLONE_NEWNET); err != nil {
				done <- result{nil, err}
				return
			}
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			done <- result{conn, err}
		}()
		r := <-done
		return r.conn, r.err
	}
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 8}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// run starts `headgate run`, and stops it when the test ends.
func (p *pod) run(ctx context.Context) {
	ctx, p.stop = context.WithCancel(ctx)
	go func() { p.ended <- Run(ctx, p.cfg) }()
	p.t.Cleanup(func() {
		p.stop()
		select {
		case <-p.ended:
		case <-time.After(20 * time.Second):
			p.t.Error("headgate run did not end")
		}
	})
}

// get is one request from outside; the URL's host is the pod's name in the Service, so that the
// request counts as one to split.
func (p *pod) get(path string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+podIP+":8080"+path, nil)
	if err != nil {
		return "", err
	}
	req.Host = "web.shop.svc"
	resp, err := p.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return string(body), nil
}

func (p *pod) ready() error { return p.stats("/ready") }

func (p *pod) scraped() error { return p.stats("/stats/prometheus") }

func (p *pod) stats(path string) error {
	resp, err := p.client.Get(fmt.Sprintf("http://%s:%d%s", podIP, v1alpha1.StatsPort, path))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// eventually polls until f has no error any more, and reports how long that took.
func eventually(t *testing.T, what string, within time.Duration, f func() error) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return time.Since(start)
		}
		sleep(ctx, 10*time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
	}
}

// load sends requests at a constant rate, half of them on new connections, until it is stopped.
type load struct {
	mu       sync.Mutex
	answers  map[string]int
	failures []error
	quit     chan struct{}
	done     sync.WaitGroup
}

func (p *pod) load(perSecond int) *load {
	l := &load{answers: map[string]int{}, quit: make(chan struct{})}
	jobs := make(chan bool)
	for range 16 {
		l.done.Go(func() {
			for fresh := range jobs {
				body, err := p.get("/")
				l.note(body, err)
				if fresh {
					p.client.CloseIdleConnections()
				}
			}
		})
	}
	l.done.Go(func() {
		defer close(jobs)
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				jobs <- n%4 == 0
			case <-l.quit:
				return
			}
		}
	})
	return l
}

func (l *load) note(body string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures = append(l.failures, err)
		return
	}
	l.answers[body]++
}

// take returns the answers since the last call.
func (l *load) take() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	answers := l.answers
	l.answers = map[string]int{}
	return answers
}

func (l *load) stop() error {
	close(l.quit)
	l.done.Wait()
	if n := len(l.failures); n > 0 {
		return fmt.Errorf("%d requests failed, the first: %w", n, l.failures[0])
	}
	return nil
}

// envoyProcess finds the one Envoy that is our child.
func envoyProcess() (int, error) {
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return 0, err
	}
	for _, file := range children {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for pid := range strings.FieldsSeq(string(text)) {
			if comm, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil && strings.HasPrefix(string(comm), "envoy") {
				var n int
				_, err := fmt.Sscan(pid, &n)
				return n, err
			}
		}
	}
	return 0, errors.New("no Envoy among our children")
}
