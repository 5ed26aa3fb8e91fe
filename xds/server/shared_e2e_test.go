// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Requests of several clients share an HTTP/2 connection behind the sidecar. One that does not read what it asked for, or is
// answered with nonsense, is not the others' trouble.

func TestClientsThatDoNotReadStallNobody(t *testing.T) {
	for name, weight := range map[string]uint32{"at rest": 0, "to a peer": 100} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			if weight > 0 {
				p.weight(weight)
			}
			big := make([]byte, 64<<20)
			answer := func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Big") != "" {
					_, _ = w.Write(big) // until the client is gone
					return
				}
				fmt.Fprint(w, "small")
			}
			p.appA.handle, p.appB.handle = answer, answer
			for range 3 {
				c := p.client(true)
				c.Timeout = 0
				r, err := c.Do(request(t, "http://"+p.a.IP+":8080/", "X-Big", "1"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { r.Body.Close() })
			}
			for range 20 { // until all windows are full, and some more
				r, err := p.client(true).Do(request(t, "http://"+p.a.IP+":8080/"))
				if err != nil {
					t.Fatalf("beside clients that do not read: %v", err)
				}
				b, err := io.ReadAll(r.Body)
				r.Body.Close()
				if err != nil || string(b) != "small" {
					t.Fatalf("beside clients that do not read: %q, %v", b, err)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
}

func request(t *testing.T, url string, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "web"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func TestAnAnswerThatIsWrongEndsNoOther(t *testing.T) {
	for name, bad := range map[string]hpack.HeaderField{
		"connection header":              {Name: "connection", Value: "keep-alive"},
		"upper case":                     {Name: "X-Bad", Value: "a"},
		"control character":              {Name: "x-bad", Value: "a\x01"},
		"content-length of another size": {Name: "content-length", Value: "5"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			release := make(chan struct{})
			app := &rawApp{bad: bad, good: release, waiting: make(chan struct{}, 3)}
			app.serve(t, p.a.Listen(9001))
			others := make(chan string, 3)
			for range 3 {
				go func() { others <- ask(p, request(t, "http://"+p.a.IP+":9001/good")) }()
			}
			for range 3 {
				<-app.waiting
			}
			ask(p, request(t, "http://"+p.a.IP+":9001/bad"))
			close(release)
			for range 3 {
				if got := <-others; got != "200 OK" {
					t.Errorf("another client's request: %s", got)
				}
			}
		})
	}
}

func ask(p *pair, r *http.Request) string {
	answer, err := p.client(true).Do(r)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	if _, err := io.ReadAll(answer.Body); err != nil {
		return err.Error()
	}
	return answer.Status
}

// rawApp speaks HTTP/2 frame by frame: /bad is answered at once, with a header that may not be; anything else when good is closed.
type rawApp struct {
	bad     hpack.HeaderField
	good    chan struct{}
	waiting chan struct{} // one for each request that waits
}

func (a *rawApp) serve(t *testing.T, l net.Listener) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go a.connection(c)
		}
	}()
}

func (a *rawApp) connection(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var mu sync.Mutex // of f's writing half, and of the encoder
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	answer := func(id uint32, fields ...hpack.HeaderField) {
		mu.Lock()
		defer mu.Unlock()
		block.Reset()
		for _, h := range append([]hpack.HeaderField{{Name: ":status", Value: "200"}}, fields...) {
			_ = encoder.WriteField(h) // into memory
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	}
	_ = f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				mu.Lock()
				_ = f.WriteSettingsAck()
				mu.Unlock()
			}
		case *http2.MetaHeadersFrame:
			if id := frame.StreamID; frame.PseudoValue("path") == "/bad" {
				answer(id, a.bad)
			} else {
				a.waiting <- struct{}{}
				go func() {
					<-a.good
					answer(id)
				}()
			}
		}
	}
}

// Uploads that are answered at their end, as streams are. Where nobody else can answer them, what has been passed on is not kept.
func TestUploadsAreNotKept(t *testing.T) {
	const clients, size = 40, 1 << 20
	p := newPair(t)
	p.weight(0)
	var read sync.WaitGroup
	read.Add(clients)
	answer := make(chan struct{})
	// Not the app of the pair: that reads requests to their end first.
	p.a.Serve(9001, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, size)
		read.Done()
		<-answer
	}))
	before := p.allocated()
	var all sync.WaitGroup
	for i := range clients {
		body, more := io.Pipe()
		r, err := http.NewRequest(http.MethodPost, "http://"+p.a.IP+":9001/", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "web"
		all.Go(func() { do(p.client(i%2 == 1), r) })
		all.Go(func() {
			_, _ = io.CopyN(more, zeros{}, size)
			<-answer
			more.Close()
		})
	}
	read.Wait()
	if used := p.allocated() - before; used > clients*size/4 {
		t.Errorf("%d uploads of %d bytes: %d bytes kept", clients, size, used)
	}
	close(answer)
	all.Wait()
}

// allocated is the memory in use by the sidecar of a.
func (p *pair) allocated() int64 {
	p.t.Helper()
	_, body := p.a.Admin(http.MethodGet, "/memory")
	var memory struct {
		Allocated int64 `json:"allocated,string"`
	}
	if err := json.Unmarshal([]byte(body), &memory); err != nil {
		p.t.Fatal(err)
	}
	return memory.Allocated
}
