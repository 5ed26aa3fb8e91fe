// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package network makes the network namespace of a cluster and the veth pair that leads
// into it. Everything a cluster does to the network happens inside; on the machine
// there is one interface with one /30, and no route, rule or setting besides.
package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// namespaces is where iproute2 and the netns library keep named namespaces.
const namespaces = "/run/netns"

// Path is the file that a cluster's namespace is mounted on.
func Path(c plan.Cluster) string { return filepath.Join(namespaces, c.Namespace()) }

// Exists says whether the namespace is there: a file that nothing is mounted on, as
// left by a reboot or a hand, is no namespace.
func Exists(c plan.Cluster) bool {
	var fs unix.Statfs_t
	return unix.Statfs(Path(c), &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// Free says whether no interface of the machine touches the cluster's /30.
func Free(c plan.Cluster) (bool, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("listing the machine's addresses: %w", err)
	}
	for _, address := range addresses {
		prefix, err := netip.ParsePrefix(address.String())
		if err == nil && prefix.Masked().Overlaps(c.Subnet()) {
			return false, nil
		}
	}
	return true, nil
}

// Create makes the namespace and the link. It must not exist.
func Create(c plan.Cluster) error {
	// A leftover that is no namespace would be in the way.
	if err := os.Remove(Path(c)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing what is left of namespace %q: %w", c.Namespace(), err)
	}
	if err := newNamespace(c.Namespace()); err != nil {
		return err
	}
	if err := link(c); err != nil {
		return err
	}
	return Do(c, func() error { return inside(c) })
}

// Delete removes both; what is gone already is no error. The namespace itself lives on
// until the last process in it has ended.
func Delete(c plan.Cluster) error {
	if host, err := netlink.LinkByName(c.HostLink()); err == nil {
		if err := netlink.LinkDel(host); err != nil {
			return fmt.Errorf("deleting interface %q: %w", c.HostLink(), err)
		}
	}
	path := Path(c)
	// More than one mount may lie on the file when creation was cut short and repeated.
	for Exists(c) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %q: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing namespace %q: %w", c.Namespace(), err)
	}
	return nil
}

// Do calls f on a thread that is in the cluster's network namespace. Processes that f
// starts are born there; goroutines that it starts are not.
func Do(c plan.Cluster, f func() error) error {
	return onOwnThread(func() error {
		if err := Enter(c); err != nil {
			return err
		}
		return f()
	})
}

// Enter moves the calling thread, which must be locked, into the namespace.
func Enter(c plan.Cluster) error {
	ns, err := netns.GetFromName(c.Namespace())
	if err != nil {
		return fmt.Errorf("opening namespace %q: %w", c.Namespace(), err)
	}
	defer func() { _ = ns.Close() }()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("entering namespace %q: %w", c.Namespace(), err)
	}
	return nil
}

// newNamespace makes a named network namespace.
func newNamespace(name string) error {
	if err := shareNamespaces(); err != nil {
		return fmt.Errorf("preparing %s: %w", namespaces, err)
	}
	return onOwnThread(func() error {
		ns, err := netns.NewNamed(name)
		if err != nil {
			return fmt.Errorf("making namespace %q: %w", name, err)
		}
		return ns.Close()
	})
}

// shareNamespaces makes the directory a shared mount of its own, as `ip netns add` does (iproute2, ip/ipnetns.c). When that
// is the first to do so, it puts the mount over the names that are there, and they can't be removed any more.
func shareNamespaces() error {
	if err := os.MkdirAll(namespaces, 0o755); err != nil {
		return err
	}
	share := func() error { return unix.Mount("", namespaces, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err := share()
	if !errors.Is(err, unix.EINVAL) { // that it is no mount yet
		return err
	}
	if err := unix.Mount(namespaces, namespaces, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return share()
}

// onOwnThread calls f on a thread that ends afterwards: it stays locked, so that a
// thread in a foreign namespace is never used for anything else.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// link makes the veth pair and sets up the machine's end.
func link(c plan.Cluster) error {
	ns, err := netns.GetFromName(c.Namespace())
	if err != nil {
		return fmt.Errorf("opening namespace %q: %w", c.Namespace(), err)
	}
	defer func() { _ = ns.Close() }()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = c.HostLink()
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("making interface %q: %w", c.HostLink(), err)
	}
	return setUp(c.HostLink(), netip.PrefixFrom(c.HostIP(), c.Subnet().Bits()))
}

// inside sets up the cluster's end, from within the namespace.
func inside(c plan.Cluster) error {
	if err := setUp("lo", netip.MustParsePrefix("127.0.0.1/8")); err != nil {
		return err
	}
	if err := setUp("eth0", netip.PrefixFrom(c.NodeIP(), c.Subnet().Bits())); err != nil {
		return err
	}
	// The default route leads no further than the machine. It is needed all the same: kube-proxy
	// rewrites Service addresses only in packets that found a route.
	if err := netlink.RouteAdd(&netlink.Route{Gw: c.HostIP().AsSlice()}); err != nil {
		return fmt.Errorf("adding the default route of %q: %w", c.Namespace(), err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("letting %q forward: %w", c.Namespace(), err)
	}
	return nil
}

// setUp gives an interface its address and starts it.
func setUp(name string, address netip.Prefix) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding interface %q: %w", name, err)
	}
	ipNet := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen())}
	err = netlink.AddrAdd(device, &netlink.Addr{IPNet: ipNet})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("giving %s to interface %q: %w", address, name, err)
	}
	if err := netlink.LinkSetUp(device); err != nil {
		return fmt.Errorf("starting interface %q: %w", name, err)
	}
	return nil
}
