// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/headgate/headgate/xds"
)

// ask sends a request with these headers on a connection, and returns the status of the answer.
func ask(c net.Conn, headers string) (int, error) {
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: web.shop.svc\r\n%s\r\n", headers); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// silent are connections of clients that have been answered once, and then said nothing while the pod was leaving.
func (p *pod) silent(n int) []net.Conn {
	p.t.Helper()
	var out []net.Conn
	for range n {
		c := p.connect(podIP + ":8080")
		if got, err := ask(c, ""); got != http.StatusOK {
			p.t.Fatal(got, err)
		}
		out = append(out, c)
	}
	return out
}

// askAll asks on one connection after the other, until d is over, and counts who is answered 503, and who hung up on.
func askAll(t *testing.T, conns []net.Conn, d time.Duration) (unavailable, closed int) {
	t.Helper()
	for _, c := range conns {
		switch got, err := ask(c, ""); {
		case got == http.StatusServiceUnavailable:
			unavailable++
		case err != nil:
			closed++
		default:
			t.Errorf("answer %d of an app that has ended", got)
		}
		sleep(t.Context(), d/time.Duration(len(conns)))
	}
	return unavailable, closed
}

// TestSilentClientsAreHungUpOn: natively the app's end closes their connections, and they ask another pod.
func TestSilentClientsAreHungUpOn(t *testing.T) {
	if !inPod(t) {
		return
	}
	p := runningPod(t)
	conns := p.silent(25)
	if err := Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.app.Close()
	p.stop()
	sleep(t.Context(), 50*time.Millisecond) // it asks Envoy whether it may end
	if unavailable, closed := askAll(t, conns, 2*time.Second); unavailable > 0 {
		t.Errorf("%d clients were answered 503, %d were hung up on", unavailable, closed)
	}
}

// TestASlowClientGetsItsAnswer though the app has ended: the sidecar has it.
func TestASlowClientGetsItsAnswer(t *testing.T) {
	if !inPod(t) {
		return
	}
	p := runningPod(t)
	c := p.connect(podIP + ":8080")
	if err := c.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil { // so that what it doesn't read stays in Envoy
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(c, "GET /large HTTP/1.1\r\nHost: web.shop.svc\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	read := int64(0)
	eventually(t, "the app has answered, and the sidecar has not", 10*time.Second, func() error {
		active, err := newAdmin().active(t.Context())
		if err != nil || active > 0 { // the buffers are full
			n, err2 := io.CopyN(io.Discard, resp.Body, 64<<10)
			read += n
			return fmt.Errorf("%d active, %v", active, errors.Join(err, err2))
		}
		buffered, err := newAdmin().buffered(t.Context())
		if err != nil || buffered == 0 {
			return fmt.Errorf("%d bytes buffered, %v", buffered, err)
		}
		return nil
	})
	p.app.Close()
	p.stop()
	sleep(t.Context(), 400*time.Millisecond)
	n, err := io.Copy(io.Discard, resp.Body)
	if read += n; err != nil || read < large {
		t.Errorf("%d bytes arrived, %v; want %d", read, err, large)
	}
}

// TestSilentClientsAreHungUpOnBesideAPeer that does not know of the end: it is told that nobody has seen its requests.
func TestSilentClientsAreHungUpOnBesideAPeer(t *testing.T) {
	if !inPod(t) {
		return
	}
	p := runningPod(t)
	conns, peer := p.silent(25), p.connect(podIP+":15601")
	if got, err := ask(peer, meantFor8080); got != http.StatusOK {
		t.Fatal(got, err)
	}
	if err := Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.app.Close()
	p.stop()
	sleep(t.Context(), 600*time.Millisecond)
	if got, err := ask(peer, meantFor8080); got != http.StatusServiceUnavailable {
		t.Errorf("the peer got %d, %v", got, err)
	}
	if unavailable, closed := askAll(t, conns, 2*time.Second); unavailable > 0 {
		t.Errorf("%d clients were answered 503, %d were hung up on", unavailable, closed)
	}
}

// meantFor8080 is the header by which a peer says whom it means.
const meantFor8080 = xds.PortHeader + ": 8080\r\n"

// TestListening finds the ports of sockets that listen, and not those of connections.
func TestListening(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint32(lis.Addr().(*net.TCPAddr).Port)
	conn, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if ports, err := listening(); err != nil || !ports[port] {
		t.Errorf("%d is not among %v, %v", port, ports, err)
	}
	lis.Close()
	if ports, err := listening(); err != nil || ports[port] {
		t.Errorf("%d is still among %v, %v", port, ports, err)
	}
}

// TestClientsAreHungUpOnWhileTheAppFinishes what it has begun. It listens no more.
func TestClientsAreHungUpOnWhileTheAppFinishes(t *testing.T) {
	if !inPod(t) {
		return
	}
	p := runningPod(t)
	conns := p.silent(25)
	upload := p.connect(podIP + ":8080")
	if _, err := fmt.Fprint(upload, "POST / HTTP/1.1\r\nHost: web.shop.svc\r\nContent-Length: 2\r\n\r\n1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a request is under way", 5*time.Second, func() error {
		if n, err := newAdmin().active(t.Context()); err != nil || n != 1 {
			return fmt.Errorf("%d active, %v", n, err)
		}
		return nil
	})
	if err := Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	finished := make(chan error, 1)
	go func() { finished <- p.app.Shutdown(t.Context()) }()
	sleep(t.Context(), lookAtPorts+600*time.Millisecond) // Envoy takes its time: 100 ms to see it, 250 ms for a last request
	late := []net.Conn{p.connect(podIP + ":8080"), p.connect(podIP + ":8080")}
	if unavailable, closed := askAll(t, append(late, conns...), 200*time.Millisecond); unavailable > 0 {
		t.Errorf("%d clients were answered 503, %d were hung up on", unavailable, closed)
	}
	if err := p.scraped(); err != nil {
		t.Errorf("what was counted last can't be read: %v", err)
	}
	if len(finished) > 0 {
		t.Error("the app finished before the request did")
	}
	if _, err := fmt.Fprint(upload, "2"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(upload), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the request that was under way got %s", resp.Status)
	}
}
