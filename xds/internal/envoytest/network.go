// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package envoytest runs real Envoys in network namespaces that play pods, with the redirects that
// `headgate prepare` makes. Nothing leaves the namespaces; ending a test deletes them.
//
//	clients' namespace: bridge 10.213.0.1 ──┬── pod 10.213.0.11: nftables -> Envoy -> app
//	                                        └── pod 10.213.0.12
package envoytest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Network is a bridge with clients on it, and pods.
type Network struct {
	t     testing.TB
	envoy string
	ns    string
	pods  int
}

// New makes an empty network. It skips the test where it can't: not root, no tools, or no Envoy
// ($HEADGATE_ENVOY, or anything named envoy under .cache of the repository).
func New(t testing.TB) *Network {
	t.Helper()
	n := &Network{t: t, envoy: Binary(t), ns: fmt.Sprintf("hgxds-%d", os.Getpid())}
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range []string{"ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	n.namespace(n.ns)
	n.run("ip", "-n", n.ns, "link", "add", "br0", "type", "bridge")
	n.run("ip", "-n", n.ns, "link", "set", "br0", "up")
	n.run("ip", "-n", n.ns, "addr", "add", "10.213.0.1/24", "dev", "br0")
	n.run("ip", "-n", n.ns, "addr", "add", "fd13::1/64", "dev", "br0", "nodad")
	return n
}

// Binary finds Envoy, or skips the test.
func Binary(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("HEADGATE_ENVOY"); p != "" {
		return p
	}
	_, file, _, _ := runtime.Caller(0)
	found := ""
	_ = filepath.WalkDir(filepath.Join(filepath.Dir(file), "../../../.cache"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() == "envoy" {
			found = path
			return filepath.SkipAll
		}
		return nil
	})
	if found == "" {
		t.Skip("needs Envoy: set HEADGATE_ENVOY, or run sidecar/testdata/get-envoy.sh")
	}
	if err := os.Chmod(found, 0o755); err != nil {
		t.Fatal(err)
	}
	return found
}

// NoteVersion prints the version of Envoy as a line of configuration that holds for the benchmark results after it
// (golang.org/design/14313-benchmark-format): they mean little without.
func (n *Network) NoteVersion() {
	n.t.Helper()
	out, err := exec.Command(n.envoy, "--version").Output()
	if err != nil {
		n.t.Fatalf("asking %s for its version: %v", n.envoy, err)
	}
	// "…/envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL", the path as it was called.
	_, version, _ := strings.Cut(string(out), "version: ")
	parts := strings.Split(version, "/")
	if len(parts) < 2 {
		n.t.Fatalf("%s says of its version %q", n.envoy, out)
	}
	fmt.Printf("envoy: %s\n", parts[1])
}

func (n *Network) namespace(name string) {
	n.t.Helper()
	n.run("ip", "netns", "add", name)
	n.t.Cleanup(func() { n.run("ip", "netns", "del", name) })
	n.run("ip", "-n", name, "link", "set", "lo", "up")
}

func (n *Network) run(name string, args ...string) {
	n.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// Dial connects as a client outside all pods.
func (n *Network) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	inErr := inNamespace(n.ns, func() { c, err = (&net.Dialer{}).DialContext(ctx, network, address) })
	if inErr != nil {
		return nil, inErr
	}
	return c, err
}

// inNamespace runs f on a thread that is in the namespace. f must not start goroutines that make sockets.
func inNamespace(name string, f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return fmt.Errorf("opening own namespace: %w", err)
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + name)
	if err != nil {
		return fmt.Errorf("opening namespace: %w", err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering namespace %s: %w", name, err)
	}
	f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(err) // this thread must not serve anything else
	}
	return nil
}
