// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"strings"
	"testing"
)

func TestMountsBelow(t *testing.T) {
	mountinfo := strings.Join([]string{
		`22 1 254:0 / / rw,relatime - ext4 /dev/vda rw`,
		`90 22 0:50 / /var/lib/headgate-cluster/a/kubelet/pods/1/volumes/token rw - tmpfs tmpfs rw`,
		`91 22 0:51 / /var/lib/headgate-cluster/a/containerd/state/rootfs rw shared:5 - overlay overlay rw`,
		`92 91 0:52 / /var/lib/headgate-cluster/a/containerd/state/rootfs/with\040space rw - tmpfs tmpfs rw`,
		`93 22 0:53 / /var/lib/headgate-cluster/ab/containerd/state/rootfs rw - overlay overlay rw`,
		`94 22 0:4 net:[4026532301] /run/netns/headgate-a rw - nsfs nsfs rw`,
		``,
	}, "\n")
	want := []string{
		"/var/lib/headgate-cluster/a/containerd/state/rootfs/with space",
		"/var/lib/headgate-cluster/a/containerd/state/rootfs",
		"/var/lib/headgate-cluster/a/kubelet/pods/1/volumes/token",
	}
	if got := mountsBelow([]byte(mountinfo), "/var/lib/headgate-cluster/a"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCNIResultsOf(t *testing.T) {
	mine, other := strings.Repeat("a", 64), strings.Repeat("b", 64)
	names := []string{
		"headgate-a-" + mine + "-eth0",
		"cni-loopback-" + mine + "-lo",
		"headgate-a-b-" + other + "-eth0",
		"cni-loopback-" + other + "-lo",
		"headgate-a-notes.txt",
	}
	if got, want := cniResultsOf("headgate-a", names), names[:2]; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
