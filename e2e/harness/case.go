// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Case is one test, or benchmark, in a namespace of its own.
type Case struct {
	*Cluster
	T testing.TB
	// Namespace is deleted when the test ends.
	Namespace string
	// Ctx ends with the case.
	Ctx context.Context
	// Pods has seen every pod with the label app=<Name> since the case began.
	Pods *PodLog

	loads []*Load
}

// Name of the workload in every case, of its Service, policy and Rollout.
const Name = "web"

// Mode says whether Headgate's webhooks see the namespace.
type Mode bool

// Modes of a namespace.
const (
	Enabled    Mode = true
	NotEnabled Mode = false
)

// A case is bounded, so that one that hangs fails with its own story, not with the whole run's.
const (
	caseLimit      = 20 * time.Minute
	BenchmarkLimit = 2 * time.Hour
)

// NewCase makes the namespace.
func (c *Cluster) NewCase(t testing.TB, mode Mode) *Case {
	t.Helper()
	limit := caseLimit
	if _, ok := t.(*testing.B); ok {
		limit = BenchmarkLimit
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-" + slug(t.Name()) + "-",
		Labels:       map[string]string{"headgate-e2e": "true"},
	}}
	if mode == Enabled {
		ns.Labels[v1alpha1.EnabledLabel] = "true"
	}
	ns, err := c.Kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil {
		cancel()
		t.Fatalf("creating a namespace: %v", err)
	}
	k := &Case{Cluster: c, T: t, Namespace: ns.Name, Ctx: ctx}
	t.Cleanup(func() {
		defer cancel()
		k.end()
	})
	if k.Pods, err = c.WatchPods(ctx, ns.Name, "app="+Name); err != nil {
		t.Fatal(err)
	}
	return k
}

// end prints what happened if the test failed, and deletes the namespace without waiting for it.
func (c *Case) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c.Pods != nil && c.Ctx.Err() == nil && c.Pods.Err() != nil {
		c.T.Errorf("pods were not watched to the end: %v", c.Pods.Err())
	}
	if c.T.Failed() {
		c.T.Log(c.Dump(ctx, c.Namespace))
	}
	for _, l := range c.loads {
		l.release()
	}
	if err := c.Kube.CoreV1().Namespaces().Delete(ctx, c.Namespace, metav1.DeleteOptions{}); err != nil {
		c.T.Errorf("deleting namespace %s: %v", c.Namespace, err)
	}
}

// slug is what of a test's name fits into a namespace's: its last parts.
func slug(name string) string {
	name = regexp.MustCompile("[^a-z0-9]+").ReplaceAllString(strings.ToLower(name), "-")
	if len(name) > 40 {
		name = name[len(name)-40:]
	}
	return strings.Trim(name, "-")
}

// Try runs kubectl in the case's namespace and returns how it ended.
func (c *Case) Try(args ...string) Result {
	return c.TryWith("", args...)
}

// TryWith is Try with a standard input.
func (c *Case) TryWith(stdin string, args ...string) Result {
	return c.RunKubectl(c.Ctx, stdin, append([]string{"-n", c.Namespace}, args...)...)
}

// Do is Try that must succeed.
func (c *Case) Do(args ...string) Result {
	c.T.Helper()
	r := c.Try(args...)
	if r.Exit != 0 {
		c.T.Fatal(r)
	}
	return r
}

// Apply applies manifests with kubectl apply and more flags.
func (c *Case) Apply(manifest string, flags ...string) Result {
	c.T.Helper()
	r := c.TryWith(manifest, append([]string{"apply", "-f", "-"}, flags...)...)
	if r.Exit != 0 {
		c.T.Fatalf("%s\n%s", r, manifest)
	}
	return r
}

// TryHelm runs helm in the case's namespace.
func (c *Case) TryHelm(args ...string) Result {
	return c.RunHelm(c.Ctx, append([]string{"-n", c.Namespace}, args...)...)
}

// Manifest renders the sample application with values such as "tag=v2" or "replicas=10".
func (c *Case) Manifest(values ...string) string {
	c.T.Helper()
	r := c.RunHelm(c.Ctx, append([]string{"template", Name, c.Chart()}, setFlags(values)...)...)
	if r.Exit != 0 {
		c.T.Fatal(r)
	}
	return r.Stdout
}

// Chart is the folder of the sample application's chart.
func (c *Cluster) Chart() string { return c.Repo + "/e2e/manifests/app" }

func setFlags(values []string) []string {
	var flags []string
	for _, v := range values {
		flags = append(flags, "--set", v)
	}
	return flags
}

// Deploy applies the sample application with these values and waits until it is stable.
func (c *Case) Deploy(values ...string) {
	c.T.Helper()
	c.Apply(c.Manifest(values...))
	c.AwaitComplete()
}

// Policy applies a RolloutPolicy with this spec, as YAML (indented as a whole).
func (c *Case) Policy(spec string) {
	c.T.Helper()
	c.Apply(PolicyManifest(spec))
}

// PolicyManifest is a RolloutPolicy with this spec, YAML without indentation.
func PolicyManifest(spec string) string {
	spec = strings.TrimSpace(spec)
	return fmt.Sprintf("apiVersion: %s\nkind: RolloutPolicy\nmetadata:\n  name: %s\nspec:\n  %s\n",
		v1alpha1.GroupVersion, Name, strings.ReplaceAll(spec, "\n", "\n  "))
}

// SetImage makes the update that nearly everything here is about.
func (c *Case) SetImage(tag string) {
	c.T.Helper()
	c.Do("set", "image", "deployment/"+Name, "app="+AppImage+tag)
}
