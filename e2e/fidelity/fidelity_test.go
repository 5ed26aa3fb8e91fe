// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package fidelity

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/internal/simulate"
)

const (
	// minor is the version of Kubernetes that the models follow.
	minor = "36"
	// histories are about a minute's worth.
	histories = 30
	// together is how many are played at a time: most of the time of each is waiting.
	together = 6
	// shrinking is how long a shorter history is looked for.
	shrinking = 2 * time.Minute
)

// TestModelsAreFaithful: after every line of random histories the models have come to the same as a real control plane.
// HEADGATE_SIMULATE_SEED is the first seed, HEADGATE_SIMULATE_HISTORIES how many there are.
func TestModelsAreFaithful(t *testing.T) {
	first, n := setting(t, "HEADGATE_SIMULATE_SEED", 1), setting(t, "HEADGATE_SIMULATE_HISTORIES", histories)
	cluster := connect(t)
	node := makeNode(t, cluster)
	next, compared := atomic.Int64{}, atomic.Int64{}
	next.Store(first)
	var all sync.WaitGroup
	for range together {
		p := makePlane(t, cluster, node)
		all.Go(func() {
			for seed := next.Add(1) - 1; seed < first+n && !t.Failed(); seed = next.Add(1) - 1 {
				compared.Add(int64(p.check(t, seed)))
			}
		})
	}
	all.Wait()
	t.Logf("the same %d times in %d histories, from seed %d on", compared.Load(), n, first)
}

// check plays a history, and if there is a difference shows the shortest one that shows it too.
func (p *plane) check(t *testing.T, seed int64) (compared int) {
	t.Helper()
	h := random(seed)
	lines, compared, difference, err := p.play(t.Context(), h)
	switch {
	case err != nil:
		t.Errorf("seed %d, line %d: %v", seed, lines, err)
	case difference != "":
		h = h[:lines]
		t.Errorf("seed %d differs; looking for a shorter history than this\n%s\n%s", seed, h, difference)
		h, difference = p.shrink(t.Context(), h, difference)
		t.Logf("the shortest history found, of seed %d:\n%s\n%s", seed, h, difference)
	}
	return compared
}

// shrink leaves out one line after the other, from the end on, as long as there is a difference and time.
func (p *plane) shrink(ctx context.Context, h simulate.History, difference string) (simulate.History, string) {
	ctx, cancel := context.WithTimeout(ctx, shrinking)
	defer cancel()
	for i := len(h) - 1; i >= 0 && ctx.Err() == nil; i-- {
		part := slices.Delete(slices.Clone(h), i, i+1)
		if err := p.clear(ctx); err != nil {
			continue
		}
		if lines, _, d, err := p.play(ctx, part); err == nil && d != "" {
			h, difference, i = part[:lines], d, min(i, lines)
		}
	}
	return h, difference
}

func connect(t *testing.T) *harness.Cluster {
	t.Helper()
	cluster, err := harness.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	version, err := cluster.Kube.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.Minor != minor {
		t.Skipf("the models are of Kubernetes 1.%s, not of %s", minor, version)
	}
	return cluster
}

// makeNode makes a node that no kubelet has registered. It was never ready, so that no controller cares for the pods on it.
func makeNode(t *testing.T, c *harness.Cluster) string {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "fidelity-"}, Spec: corev1.NodeSpec{Unschedulable: true}}
	node, err := c.Kube.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kube.CoreV1().Nodes().Delete(context.Background(), node.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return node.Name
}

// makePlane makes a namespace, which is not Headgate's to see.
func makePlane(t *testing.T, c *harness.Cluster, node string) *plane {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "fidelity-"}}
	ns, err := c.Kube.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Of the test's end the context knows before its cleanup begins.
	ctx, cancel := context.WithCancel(context.Background())
	p, err := newPlane(ctx, c, ns.Name, node)
	t.Cleanup(func() {
		defer cancel()
		if err := p.clear(ctx); err != nil {
			t.Error(err)
		}
		if err := c.Kube.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func setting(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	n, err := strconv.ParseInt(cmp.Or(os.Getenv(name), fmt.Sprint(otherwise)), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
