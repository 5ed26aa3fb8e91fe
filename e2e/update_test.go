// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"cmp"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// way is how a team brings its application out.
type way struct {
	// values of the chart, beside the tag.
	values []string
	// manager is the field manager by which the tool applies server-side; empty: kubectl's own.
	manager string
	// install brings the first version out, or the same again.
	install func(c *harness.Case, tag string, values []string) harness.Result
	// update brings the next one out and waits for it as a pipeline would.
	update func(c *harness.Case, tag string, values []string) harness.Result
}

const rolloutStatus = "rollout status deployment/" + harness.Name + " --timeout=4m"

func applyWay(flags ...string) way {
	apply := func(c *harness.Case, tag string, values []string) harness.Result {
		r := c.RunHelm(c.Ctx, append([]string{"template", harness.Name, c.Chart()}, sets(tag, values)...)...)
		if r.Exit != 0 {
			return r
		}
		return c.TryWith(r.Stdout, append([]string{"apply", "-f", "-"}, flags...)...)
	}
	return way{install: apply, update: func(c *harness.Case, tag string, values []string) harness.Result {
		if r := apply(c, tag, values); r.Exit != 0 {
			return r
		}
		return c.Try(words(rolloutStatus)...)
	}}
}

func setImageWay() way {
	w := applyWay()
	w.update = func(c *harness.Case, tag string, _ []string) harness.Result {
		if r := c.Try("set", "image", "deployment/"+harness.Name, "app="+harness.AppImage+tag); r.Exit != 0 {
			return r
		}
		return c.Try(words(rolloutStatus)...)
	}
	return w
}

func helmWay(values ...string) way {
	run := func(c *harness.Case, tag string, values []string) harness.Result {
		args := append([]string{"upgrade", "--install", harness.Name, c.Chart(), "--wait", "--timeout", "4m"}, sets(tag, values)...)
		return c.TryHelm(args...)
	}
	return way{values: values, manager: "helm", install: run, update: run}
}

func sets(tag string, values []string) []string {
	flags := []string{"--set", "tag=" + tag}
	for _, v := range values {
		flags = append(flags, "--set", v)
	}
	return flags
}

// A good version, brought out as teams do it, is promoted; no request fails, no pod is made twice, no
// tool sees drift or a conflict, neither in the middle nor afterwards.
func testGoodUpdate(t *testing.T, cluster *harness.Cluster) {
	withStrategy := []string{"strategy.type=RollingUpdate", "strategy.rollingUpdate.maxSurge=2", "strategy.rollingUpdate.maxUnavailable=1"}
	ways := map[string]way{
		"kubectl set image":                   setImageWay(),
		"kubectl apply":                       applyWay(),
		"kubectl apply, server-side":          applyWay("--server-side"),
		"helm upgrade, chart with strategy":   helmWay(withStrategy...),
		"helm upgrade, chart without":         helmWay(),
		"server-side, manifest with strategy": withValues(applyWay("--server-side"), withStrategy),
	}
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			goodUpdate(cluster.NewCase(t, harness.Enabled), w)
		})
	}
}

func withValues(w way, values []string) way {
	w.values = values
	return w
}

func goodUpdate(c *harness.Case, w way) {
	const n = 3
	t := c.T
	values := append([]string{"replicas=3"}, w.values...)
	c.Policy(quick)
	if r := w.install(c, "v1", values); r.Exit != 0 {
		t.Fatal(r)
	}
	c.AwaitStable()
	want := fieldsOf(c.AwaitComplete())
	created := c.Pods.All()
	loads := everywhere(c)

	waited := background(func() harness.Result { return w.update(c, "v2", values) })
	c.AwaitWeight(2*time.Minute, 0, 20)
	manifest := c.Manifest(append([]string{"tag=v2"}, values...)...)
	serverSide := []string{"diff", "-f", "-", "--server-side", "--field-manager=" + cmp.Or(w.manager, "kubectl")}
	for _, flags := range [][]string{{"diff", "-f", "-"}, serverSide} {
		if r := c.TryWith(manifest, flags...); drift(r) {
			t.Errorf("in the middle of the rollout: %s", r)
		}
	}
	if r := <-waited; r.Exit != 0 {
		t.Errorf("the update: %s", r)
	}
	end := requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	d := c.AwaitComplete()
	if image(d) != "v2" {
		t.Errorf("the Deployment's image is %s, want v2", image(d))
	}
	requireFields(t, want, d)
	if got := c.Pods.Created(end.To); got != n || c.Pods.All() != created+n {
		t.Errorf("%d pods of the candidate were created, %d in all, want %d", got, c.Pods.All()-created, n)
	}
	c.AwaitStable()
	for _, l := range loads {
		if v2 := l.Report().Versions["v2"]; v2.OK == 0 {
			t.Errorf("no answer came from v2: %v", l.Report().Versions)
		}
	}
	stopAll(c, loads)
	requireQuietReapply(c, w, values)
}

// requireQuietReapply applies the same once more, as GitOps tools do all day: no conflict, no change.
func requireQuietReapply(c *harness.Case, w way, values []string) {
	c.T.Helper()
	before := c.AwaitComplete()
	if r := w.install(c, "v2", values); r.Exit != 0 {
		c.T.Errorf("applying the same again: %s", r)
	}
	after := c.AwaitObserved()
	if diff := gocmp.Diff(before.Spec, after.Spec); diff != "" {
		c.T.Errorf("applying the same again changed the Deployment: %s", diff)
	}
}

// drift says whether kubectl diff shows a difference that a person would see as one.
func drift(r harness.Result) bool {
	if r.Exit == 0 {
		return false
	}
	seen := r.Exit != 1 // else it failed
	for line := range strings.Lines(r.Stdout) {
		changed := strings.HasPrefix(line, "+ ") || strings.HasPrefix(line, "- ")
		if changed && !expected(line) {
			seen = true
		}
	}
	return seen
}

// expected lines are there without Headgate too: when an object that was applied client-side is asked
// about server-side (how an annotation is written, and the generation that counts this), and when an
// object of Helm's is compared with the chart's templates (what Helm adds to them).
func expected(line string) bool {
	for _, part := range []string{`{"apiVersion":`, " generation: ", "meta.helm.sh/", "app.kubernetes.io/managed-by: Helm"} {
		if strings.Contains(line, part) {
			return true
		}
	}
	line = strings.TrimSpace(line[1:])
	return line == "annotations:" || line == "labels:"
}
