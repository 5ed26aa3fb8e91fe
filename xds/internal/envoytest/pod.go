// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package envoytest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/headgate/headgate/xds"
)

// Pod is a namespace with an address of each family.
type Pod struct {
	t         testing.TB
	n         *Network
	ns        string
	IP, IPv6  string
	link      string // the end of it that is outside
	log       bytes.Buffer
	socket    string
	server    *grpc.Server
	envoy     *exec.Cmd
	envoyDone chan struct{}
	// Edit changes Envoy's bootstrap before it starts. Nil: nothing is changed.
	Edit func(boot []byte) []byte
}

// Pod makes a pod whose TCP ports are captured.
func (n *Network) Pod(captured ...int) *Pod {
	n.t.Helper()
	n.pods++
	p := &Pod{
		t: n.t, n: n, ns: fmt.Sprintf("%s-%d", n.ns, n.pods),
		IP: fmt.Sprintf("10.213.0.%d", 10+n.pods), IPv6: fmt.Sprintf("fd13::%d", 10+n.pods),
		link: fmt.Sprintf("veth%d", n.pods),
	}
	n.namespace(p.ns)
	n.run("ip", "link", "add", p.link, "netns", n.ns, "type", "veth", "peer", "name", "eth0", "netns", p.ns)
	n.run("ip", "-n", n.ns, "link", "set", p.link, "master", "br0", "up")
	n.run("ip", "-n", p.ns, "link", "set", "eth0", "up")
	n.run("ip", "-n", p.ns, "addr", "add", p.IP+"/24", "dev", "eth0")
	n.run("ip", "-n", p.ns, "addr", "add", p.IPv6+"/64", "dev", "eth0", "nodad")
	p.capture(captured)
	return p
}

// Lose cuts the pod off, without a word to anybody, as the end of its node does.
func (p *Pod) Lose() {
	p.t.Helper()
	p.n.run("ip", "-n", p.n.ns, "link", "set", p.link, "down")
}

func (p *Pod) capture(ports []int) {
	p.t.Helper()
	list := []string{strconv.Itoa(int(xds.PeerPort))}
	for _, port := range ports {
		list = append(list, strconv.Itoa(port))
	}
	rules := fmt.Sprintf(`table inet headgate { chain prerouting {
		type nat hook prerouting priority dstnat;
		tcp dport { %s } redirect to :%d;
	}; }`, strings.Join(list, ", "), xds.CapturePort)
	cmd := exec.Command("ip", "netns", "exec", p.ns, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("nft: %v: %s", err, out)
	}
}

// Listen opens a port of the app, on all addresses of the pod.
func (p *Pod) Listen(port int) net.Listener {
	p.t.Helper()
	var l net.Listener
	var err error
	if nsErr := inNamespace(p.ns, func() { l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port)) }); nsErr != nil {
		err = nsErr
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	return l
}

// Serve runs an HTTP app (HTTP/1.1 and h2c) until the test ends.
func (p *Pod) Serve(port int, h http.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: &protocols}
	l := p.Listen(port)
	go s.Serve(l)
	p.t.Cleanup(func() { s.Close() })
	return s
}

// StartEnvoy runs a sidecar that gets its configuration from register's service, and waits until it is
// ready.
func (p *Pod) StartEnvoy(register func(grpc.ServiceRegistrar)) {
	p.t.Helper()
	dir := p.t.TempDir()
	p.socket = filepath.Join(dir, "xds.sock")
	p.StartServer(register)
	p.RunEnvoy(dir, p.socket)
	deadline := time.Now().Add(20 * time.Second)
	for {
		if status, _ := p.Admin(http.MethodGet, "/ready"); status == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("Envoy is not ready: %s", p.log.String())
		}
		time.Sleep(20 * time.Millisecond) // polling another process
	}
}

// StartServer serves configurations on the socket of this pod's Envoy. The server before must be stopped.
func (p *Pod) StartServer(register func(grpc.ServiceRegistrar)) {
	p.t.Helper()
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		p.t.Fatal(err)
	}
	p.server = grpc.NewServer()
	register(p.server)
	go p.server.Serve(l)
	p.t.Cleanup(p.server.Stop)
}

// StopServer cuts Envoy off from its configuration.
func (p *Pod) StopServer() { p.server.Stop() }

// RunEnvoy starts Envoy with the bootstrap for a socket, without waiting.
func (p *Pod) RunEnvoy(dir, socket string) {
	p.t.Helper()
	boot, err := xds.Bootstrap(xds.Node{ID: "test/" + p.ns, Socket: socket, IPv6: true})
	if err != nil {
		p.t.Fatal(err)
	}
	if p.Edit != nil {
		boot = p.Edit(boot)
	}
	p.RunEnvoyWith(dir, boot)
}

// RunEnvoyWith starts Envoy with any configuration, without waiting.
func (p *Pod) RunEnvoyWith(dir string, config []byte) {
	p.t.Helper()
	file := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		p.t.Fatal(err)
	}
	args := []string{"--net=/run/netns/" + p.ns, p.n.envoy, "-c", file, "--concurrency", "1", "-l", "warning"}
	p.envoy = exec.Command("nsenter", append(args, xds.Flags()...)...)
	p.envoy.Stdout, p.envoy.Stderr = &p.log, &p.log
	if err := p.envoy.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.envoyDone = make(chan struct{})
	go func() { p.envoy.Wait(); close(p.envoyDone) }()
	p.t.Cleanup(func() {
		p.StopEnvoy()
		if p.t.Failed() {
			p.t.Logf("Envoy of %s:\n%s", p.IP, p.log.String())
		}
	})
}

// Hang stops one thread of Envoy's, by its name, for as long as Envoy lives.
func (p *Pod) Hang(thread string) {
	p.t.Helper()
	tid, err := findThread(p.envoy.Process.Pid, thread)
	if err != nil {
		p.t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // who traces is a thread, and it ends with this goroutine
		if err := unix.PtraceSeize(tid); err != nil {
			stopped <- fmt.Errorf("tracing thread %s: %w", thread, err)
			return
		}
		stopped <- unix.PtraceInterrupt(tid)
		for { // it stops, and it must be waited for when it ends, or its process never does
			var status unix.WaitStatus
			if _, err := unix.Wait4(tid, &status, unix.WALL, nil); err != nil || status.Exited() || status.Signaled() {
				return
			}
		}
	}()
	if err := <-stopped; err != nil {
		p.t.Fatal(err)
	}
}

func findThread(pid int, name string) (tid int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pid))
	if err != nil {
		return 0, err
	}
	var seen []string
	for _, file := range files {
		comm, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		seen = append(seen, strings.TrimSpace(string(comm)))
		if seen[len(seen)-1] == name {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, fmt.Errorf("no thread %q of process %d: it has %q", name, pid, seen)
}

// EnvoyEnds says whether Envoy ends by itself within so long.
func (p *Pod) EnvoyEnds(within time.Duration) bool {
	select {
	case <-p.envoyDone:
		return true
	case <-time.After(within):
		return false
	}
}

// StopEnvoy kills the sidecar.
func (p *Pod) StopEnvoy() {
	_ = p.envoy.Process.Kill()
	<-p.envoyDone
}

// Admin asks Envoy's admin interface, from inside the pod.
func (p *Pod) Admin(method, path string) (status int, body string) {
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			if nsErr := inNamespace(p.ns, func() { c, err = (&net.Dialer{}).DialContext(ctx, network, address) }); nsErr != nil {
				return nil, nsErr
			}
			return c, err
		},
	}}
	req, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", xds.AdminPort, path), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}
