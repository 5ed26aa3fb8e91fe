// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/headgate/headgate/xds"
)

func logContext(t *testing.T) context.Context {
	return logr.NewContext(t.Context(), funcr.New(func(_, args string) { fmt.Println(time.Now().Format("15:04:05.000"), args) }, funcr.Options{}))
}

// TestChangeOverLosesNoRequest is the life of a sidecar with the real Envoy, under load all the time: it
// starts without a server, the server comes with a split, dies, and comes back with another one.
func TestChangeOverLosesNoRequest(t *testing.T) {
	if !inPod(t) {
		return
	}
	p := newPod(t)
	server := newControlPlane(t, &p.cfg)
	p.run(logContext(t))
	t.Logf("ready without a server after %v", eventually(t, "ready without a server", 15*time.Second, p.ready))

	l := p.load(200)
	share := func(what string, wantPeer func(share float64) bool) {
		t.Helper()
		l.take()
		got, total := map[string]int{}, 0
		for end := time.Now().Add(time.Minute); total < 300 && time.Now().Before(end); total = got["local"] + got["peer"] {
			sleep(t.Context(), 500*time.Millisecond)
			for who, n := range l.take() {
				got[who] += n
			}
		}
		t.Logf("%s: %v", what, got)
		if total < 300 || !wantPeer(float64(got["peer"])/float64(total)) {
			t.Errorf("%s: answers = %v", what, got)
		}
	}
	// At 300 requests four standard deviations are 12 %.
	half := func(s float64) bool { return s > 0.38 && s < 0.62 }
	none := func(s float64) bool { return s == 0 }
	// A peer that a busy machine can't reach in time is left out, and the pod answers itself.
	all := func(s float64) bool { return s > 0.97 }
	only := func(who string) func() error {
		return func() error {
			sleep(t.Context(), 100*time.Millisecond)
			if got := l.take(); got[who] == 0 || len(got) != 1 {
				return fmt.Errorf("answers = %v, want only %s", got, who)
			}
			return nil
		}
	}
	both := func() error {
		if got := l.take(); got["peer"] == 0 {
			return errors.New("no answer of the peer")
		}
		return nil
	}

	share("at rest everything is local", none)
	server.start(new(split(p.cfg, 50)))
	t.Logf("the split is in force %v after the server started", eventually(t, "split", 5*time.Second, both))
	share("with the server its weight is in force", half)
	server.stop()
	share("without the server the weight stays", half)
	server.start(nil)
	share("a server that knows nothing yet changes nothing", half)
	server.set(split(p.cfg, 100))
	eventually(t, "weight 100", 5*time.Second, only("peer"))
	share("the next weight is in force", all)
	server.stop()
	server.start(new(p.cfg.workload()))
	eventually(t, "weight 0", 5*time.Second, only("local"))
	share("a server that says rest ends the split", none)

	if err := l.stop(); err != nil {
		t.Error(err)
	}
}

// TestEnvoyCrashes: it is back at once, at rest as long as the server is away, and a crash loop is told
// to the kubelet.
func TestEnvoyCrashes(t *testing.T) {
	if !inPod(t) {
		return
	}
	p := newPod(t)
	server := newControlPlane(t, &p.cfg)
	server.start(new(split(p.cfg, 100)))
	p.run(logContext(t))
	wantAnswer := func(want string) func() error {
		return func() error {
			if got, err := p.get("/"); err != nil || got != want {
				return fmt.Errorf("answer %q, %v; want %q", got, err, want)
			}
			return nil
		}
	}
	t.Logf("ready with a server after %v", eventually(t, "ready", 15*time.Second, p.ready))
	eventually(t, "split", 5*time.Second, wantAnswer("peer"))
	sleep(t.Context(), crashLoop)

	server.stop()
	p.kill(syscall.SIGSEGV)
	t.Logf("back without a server after %v", eventually(t, "back at rest", 15*time.Second, wantAnswer("local")))
	server.start(new(split(p.cfg, 100)))
	t.Logf("and at the server's weight after %v", eventually(t, "split again", 5*time.Second, wantAnswer("peer")))

	p.kill(syscall.SIGSEGV)
	select {
	case err := <-p.ended:
		if got := ExitCode(err); got != 139 {
			t.Errorf("exit code = %d (%v), want that of the signal, 139", got, err)
		}
		p.ended <- nil
	case <-time.After(10 * time.Second):
		t.Error("a second crash within 10 s did not end headgate run")
	}
}

func (p *pod) kill(sig syscall.Signal) {
	p.t.Helper()
	pid, err := envoyProcess()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		p.t.Fatal(err)
	}
}

// TestStopWaitsForRequestsUnderWay: SIGTERM while a request is being answered and a connection is open.
func TestStopWaitsForRequestsUnderWay(t *testing.T) {
	if !inPod(t) {
		return
	}
	p := runningPod(t)
	if err := Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if runtime, err := newAdmin().call(t.Context(), http.MethodGet, "/runtime"); err != nil || !strings.Contains(string(runtime), xds.LeavingKey) {
		t.Errorf("after drain: %v, runtime %s; want that Envoy knows", err, runtime)
	}
	resp, err := p.client.Get("http://" + podIP + ":8080/")
	if err != nil {
		t.Fatalf("after drain: %v; want that requests are still served", err)
	}
	resp.Body.Close()
	if !resp.Close || resp.StatusCode != http.StatusOK {
		t.Errorf("after drain: status %d, connection closed: %t; want 200, true", resp.StatusCode, resp.Close)
	}
	connection := p.connect(podIP + ":9000")
	talk := func() {
		t.Helper()
		if _, err := connection.Write([]byte("x")); err != nil {
			t.Errorf("writing on the connection under way: %v", err)
		}
		if _, err := connection.Read(make([]byte, 1)); err != nil {
			t.Errorf("reading from the connection under way: %v", err)
		}
	}
	talk()
	answered := make(chan error, 1)
	go func() {
		_, err := p.get("/slow")
		answered <- err
	}()
	eventually(t, "both are under way", 5*time.Second, func() error {
		if n, err := newAdmin().active(t.Context()); err != nil || n != 2 {
			return fmt.Errorf("%d active, %v", n, err)
		}
		return nil
	})
	p.stop()
	if err := <-answered; err != nil {
		t.Errorf("the request under way failed: %v", err)
	}
	select {
	case err := <-p.ended:
		t.Fatalf("ended (%v) while a TCP connection was open", err)
	case <-time.After(time.Second):
	}
	talk()
	connection.Close()
	start := time.Now()
	if err := <-p.ended; err != nil {
		t.Errorf("Run = %v, want nil after it was told to stop", err)
	}
	p.ended <- nil
	t.Logf("ended %v after the last connection", time.Since(start))
}

// TestWhoStillComesIsAnsweredOrRefused: a peer that has not heard of the end sends requests until there is nobody. When its
// connection is refused it sends them elsewhere, but nobody may repeat one that was taken and never answered.
func TestWhoStillComesIsAnsweredOrRefused(t *testing.T) {
	if !inPod(t) {
		return
	}
	p := runningPod(t)
	dial := func() (net.Conn, error) { return p.dial(podIP + ":15601") }
	taken, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := p.get("/"); err != nil { // so Envoy has seen the connection before, too
		t.Fatal(err)
	}
	p.stop()
	eventually(t, "the doors are closed", 10*time.Second, func() error {
		if late, err := dial(); err == nil {
			late.Close()
			return errors.New("a connection was taken")
		}
		return nil
	})
	if _, err := fmt.Fprint(taken, "GET / HTTP/1.1\r\nHost: web.shop.svc\r\n"+meantFor8080+"\r\n"); err != nil {
		t.Errorf("asking on a connection that was taken: %v", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(taken), nil)
	if err != nil {
		t.Fatalf("reading the answer on a connection that was taken: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("status %d, connection closed: %t; want 200, true", resp.StatusCode, resp.Close)
	}
	if err := <-p.ended; err != nil {
		t.Errorf("Run = %v, want nil after it was told to stop", err)
	}
	p.ended <- nil
}

// TestOnlyEnvoyMayAskForConfiguration: the socket is in reach of the app.
func TestOnlyEnvoyMayAskForConfiguration(t *testing.T) {
	if !inPod(t) {
		return
	}
	lis, err := listenForEnvoy(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	stranger, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger was not hung up on")
	}
	lis.pid.Store(int64(syscall.Getpid()))
	if _, err := net.Dial("unix", socket); err != nil {
		t.Fatal(err)
	}
	(<-accepted).Close()
}

// TestRunsOnAReadOnlyFileSystemAsAnotherUser starts Envoy as the pod would: not root, nothing writable.
func TestRunsOnAReadOnlyFileSystemAsAnotherUser(t *testing.T) {
	if !inPod(t) {
		return
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs the command setpriv (package util-linux)")
	}
	p := newPod(t)
	newControlPlane(t, &p.cfg)
	p.cfg.Envoy = "testdata/as-in-a-pod.sh"
	t.Setenv("ENVOY", os.Getenv(isPod))
	p.run(logContext(t))
	eventually(t, "ready", 15*time.Second, p.ready)
	if got, err := p.get("/"); err != nil || got != "local" {
		t.Errorf("answer %q, %v; want local", got, err)
	}
	pid, err := envoyProcess()
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]string{
		"status": {"Uid:\t1337\t1337", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"},
		"mounts": {" / " + rootType(t) + " ro,"},
	} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(text), w) {
				t.Errorf("%s of Envoy's process lacks %q:\n%s", file, w, text)
			}
		}
	}
}

// rootType is the file system type of the root.
func rootType(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == "/" {
			return f[2]
		}
	}
	t.Fatal("no root among the mounts")
	return ""
}
