// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Addresses of the two ends; they exist only in the namespaces that the test makes.
const (
	podIPv4, clientIPv4 = "192.0.2.1", "192.0.2.2"
	podIPv6, clientIPv6 = "2001:db8::1", "2001:db8::2"
)

func TestApplyRedirectsRealPackets(t *testing.T) {
	pod, client := newPodAndClient(t)
	rules := Rules(v1alpha1.Injection{Ports: []v1alpha1.CapturedPort{{Port: 8080, Alias: 15620}}})
	pod.run(t, func() error { return Apply(rules) })

	for _, ip := range []string{podIPv4, podIPv6} {
		sidecar := pod.listen(t, ip, int(v1alpha1.CapturePort))
		app := pod.listen(t, ip, 8080)
		other := pod.listen(t, ip, 7000)
		tests := map[string]struct {
			from     *netns
			port     int
			want     *listener
			original int
		}{
			"a captured port arrives at the sidecar with its destination": {client, 8080, sidecar, 8080},
			"a peer arrives at the sidecar with its destination":          {client, 15601, sidecar, 15601},
			"an alias arrives at the app":                                 {client, 15620, app, 15620},
			"a port that is not captured arrives where it was sent":       {client, 7000, other, 7000},
			"the sidecar reaches the app on the pod's own address":        {pod, 8080, app, 8080},
		}
		for name, tc := range tests {
			t.Run(ip+": "+name, func(t *testing.T) {
				tc.from.dial(t, ip, tc.port)
				want := netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(tc.original))
				if got := tc.want.accepted(t); got != want {
					t.Errorf("original destination = %v, want %v", got, want)
				}
			})
		}
	}
}

func TestApplyIsIdempotentAndReplacesWhatWasThere(t *testing.T) {
	pod, _ := newPodAndClient(t)
	old := []Redirect{{From: 1, To: 2}}
	rules := []Redirect{{From: 80, To: 15600}, {From: 15601, To: 15600}}
	for _, r := range [][]Redirect{old, rules, rules} {
		pod.run(t, func() error { return Apply(r) })
		if diff := cmp.Diff(r, pod.redirects(t)); diff != "" {
			t.Errorf("redirects in the kernel (-want +got):\n%s", diff)
		}
	}
}

// netns is a network namespace with a name, removed when the test ends.
type netns struct{ name string }

func newPodAndClient(t *testing.T) (pod, client *netns) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make network namespaces and program nftables in them")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the command ip (package iproute2), to make network namespaces")
	}
	pod, client = newNetns(t, "pod"), newNetns(t, "client")
	ip(t, "-n", pod.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", client.name)
	for ns, addrs := range map[*netns][]string{pod: {podIPv4 + "/24", podIPv6 + "/64"}, client: {clientIPv4 + "/24", clientIPv6 + "/64"}} {
		for _, a := range addrs {
			args := []string{"-n", ns.name, "address", "add", a, "dev", "eth0"}
			if netip.MustParsePrefix(a).Addr().Is6() {
				args = append(args, "nodad") // usable at once, without duplicate address detection
			}
			ip(t, args...)
		}
		ip(t, "-n", ns.name, "link", "set", "lo", "up")
		ip(t, "-n", ns.name, "link", "set", "eth0", "up")
	}
	return pod, client
}

func newNetns(t *testing.T, role string) *netns {
	t.Helper()
	ns := &netns{name: fmt.Sprintf("hgtest-%d-%s-%d", os.Getpid(), role, time.Now().UnixNano())}
	ip(t, "netns", "add", ns.name)
	t.Cleanup(func() { ip(t, "netns", "delete", ns.name) })
	return ns
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// run calls f on a thread of this namespace. The thread is never unlocked, so it ends with f and no
// other goroutine can inherit the namespace.
func (n *netns) run(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			handle, err := os.Open("/run/netns/" + n.name)
			if err != nil {
				return err
			}
			defer handle.Close()
			if err := unix.Setns(int(handle.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// listener tells the original destination of each connection it accepts.
type listener struct{ conns chan netip.AddrPort }

func (n *netns) listen(t *testing.T, ip string, port int) *listener {
	t.Helper()
	l := &listener{conns: make(chan netip.AddrPort, 10)}
	n.run(t, func() error {
		lis, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		t.Cleanup(func() { lis.Close() })
		go func() {
			for {
				conn, err := lis.Accept()
				if err != nil {
					return
				}
				l.conns <- originalDestination(conn.(*net.TCPConn))
				conn.Close()
			}
		}()
		return nil
	})
	return l
}

func (l *listener) accepted(t *testing.T) netip.AddrPort {
	t.Helper()
	select {
	case dst := <-l.conns:
		return dst
	case <-time.After(5 * time.Second):
		t.Fatal("no connection arrived")
		return netip.AddrPort{}
	}
}

func (n *netns) dial(t *testing.T, ip string, port int) {
	t.Helper()
	n.run(t, func() error {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(ip, strconv.Itoa(port)), 5*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// originalDestination asks conntrack, as Envoy's original_dst listener filter does; without an answer
// (nothing was redirected) it is the local address.
func originalDestination(conn *net.TCPConn) (dst netip.AddrPort) {
	dst = conn.LocalAddr().(*net.TCPAddr).AddrPort()
	raw, err := conn.SyscallConn()
	if err != nil {
		return dst
	}
	_ = raw.Control(func(fd uintptr) {
		if dst.Addr().Is4() {
			// struct sockaddr_in fits the first 16 bytes of this structure.
			if m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
				b := m.Multiaddr
				dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4]))
			}
			return
		}
		if m, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, unix.SO_ORIGINAL_DST); err == nil {
			port := binary.NativeEndian.AppendUint16(nil, m.Addr.Port)
			dst = netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), binary.BigEndian.Uint16(port))
		}
	})
	return dst
}

// redirects reads back what the kernel has: the two ports of each rule of the table's only chain.
func (n *netns) redirects(t *testing.T) (found []Redirect) {
	t.Helper()
	n.run(t, func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
		if err != nil {
			return err
		}
		if len(chains) != 1 || chains[0].Table.Name != tableName {
			return fmt.Errorf("%d chains, want the one of table %s", len(chains), tableName)
		}
		rules, err := conn.GetRules(chains[0].Table, chains[0])
		for _, r := range rules {
			from, to := r.Exprs[3].(*expr.Cmp).Data, r.Exprs[4].(*expr.Immediate).Data
			found = append(found, Redirect{From: binary.BigEndian.Uint16(from), To: binary.BigEndian.Uint16(to)})
		}
		return err
	})
	return found
}
