// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package plan says what a cluster of a given name is called and where it lives:
// its folder, network namespace, interfaces and addresses. Nothing here touches
// the machine; that two clusters can't get into each other's way is decided, and
// tested, here.
package plan

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"path/filepath"
	"regexp"
)

// Home holds one folder per cluster. It is a short, fixed path outside the
// repository because sockets below it must fit into the 107 bytes that the kernel
// allows, wherever the repository was cloned.
const Home = "/var/lib/headgate-cluster"

// Addresses inside a cluster. Every cluster has the same ones: each lives in a
// network namespace of its own.
const (
	PodCIDR     = "10.244.0.0/16"
	ServiceCIDR = "10.96.0.0/16"
	// APIServiceIP is the first address of ServiceCIDR, which the API server takes.
	APIServiceIP = "10.96.0.1"
	// DNSServiceIP is the address every pod has as its name server.
	DNSServiceIP = "10.96.0.10"
	// APIPort is where the API server listens, on all addresses of the namespace.
	APIPort = 6443
	// Domain is the DNS suffix of Services.
	Domain = "cluster.local"
	// Node is the name of the only node.
	Node = "node1"
)

// Slots is how many clusters fit side by side: the /30 networks of 172.31.0.0/16
// but for those of 172.31.0.0/24, where clouds that use this range keep resolvers
// and gateways.
const Slots = 1<<14 - 1<<6

// validName keeps "hg-"+name within the 15 bytes of an interface name.
var validName = regexp.MustCompile("^[a-z][a-z0-9-]{0,10}[a-z0-9]$|^[a-z]$")

// Cluster is one local cluster. Name and Slot say everything but what it runs.
type Cluster struct {
	Name string
	// Slot numbers the /30 network that joins the cluster to the machine, 0 to Slots-1.
	Slot int
	// Kubernetes is the minor version that the cluster runs, such as 1.36.
	Kubernetes string
}

// CheckName says why a name can't be a cluster's.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q can't be the name of a cluster: want 1 to 12 lower-case letters, digits and dashes, a letter first", name)
	}
	return nil
}

// CandidateSlots returns the order in which a cluster of this name tries the slots:
// its own first, which depends on the name alone so that a kubeconfig stays valid when a
// cluster is made anew, then the following ones.
func CandidateSlots(name string) func(yield func(int) bool) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	first := int(h.Sum32() % Slots)
	return func(yield func(int) bool) {
		for i := range Slots {
			if !yield((first + i) % Slots) {
				return
			}
		}
	}
}

// Subnet is the /30 that joins the cluster to the machine.
func (c Cluster) Subnet() netip.Prefix {
	offset := (c.Slot + 1<<6) * 4
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, byte(offset >> 8), byte(offset)}), 30)
}

// HostIP is the machine's end of the link, and the cluster's default gateway.
func (c Cluster) HostIP() netip.Addr { return c.Subnet().Addr().Next() }

// NodeIP is the cluster's end: the node's address, where the API server is reached.
func (c Cluster) NodeIP() netip.Addr { return c.HostIP().Next() }

// APIServer is the URL of the API server, valid on the machine and in the cluster.
func (c Cluster) APIServer() string { return fmt.Sprintf("https://%s:%d", c.NodeIP(), APIPort) }

// Namespace names the network namespace, as `ip netns` shows it.
func (c Cluster) Namespace() string { return "headgate-" + c.Name }

// HostLink names the machine's end of the veth pair.
func (c Cluster) HostLink() string { return "hg-" + c.Name }

// CNINetwork names the pod network. CNI keeps results by this name in a folder
// that all clusters share, so it must be unique.
func (c Cluster) CNINetwork() string { return "headgate-" + c.Name }

// Cgroup is the parent of all containers' control groups, relative to each
// hierarchy's root. Whatever runs in it belongs to this cluster, even when its
// shim is gone.
func (c Cluster) Cgroup() string { return "/headgate-" + c.Name }

// Dir is the folder with everything the cluster writes.
func (c Cluster) Dir() string { return filepath.Join(Home, c.Name) }

// Path returns a path below Dir.
func (c Cluster) Path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir()}, elem...)...)
}

// ContainerdSocket is where the container runtime listens.
func (c Cluster) ContainerdSocket() string { return c.Path("containerd.sock") }

// Kubeconfig is the administrator's.
func (c Cluster) Kubeconfig() string { return c.Path("kubeconfig") }

// Log is the file with the output of one component.
func (c Cluster) Log(component string) string { return c.Path("log", component+".log") }

// Record is the file that says which process a component is.
func (c Cluster) Record(component string) string { return c.Path("process", component+".json") }
