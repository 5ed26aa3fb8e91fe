// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// asking is a policy with these queries at a host.
func asking(ns, name, host string, queries ...string) *v1alpha1.RolloutPolicy {
	p := policyIn(ns, name, 0)
	p.Spec.Analysis.Prometheus = &v1alpha1.PrometheusRef{URL: "http://" + host}
	for _, q := range queries {
		p.Spec.Analysis.Metrics = append(p.Spec.Analysis.Metrics, v1alpha1.Metric{Name: q, MetricSpec: v1alpha1.MetricSpec{Query: q}})
	}
	return p
}

// checker answers at once at the host "good", and never within 2 s elsewhere.
type checker struct {
	mu    sync.Mutex
	asked map[string]int // by query
}

func (c *checker) check(ctx context.Context, e Endpoint, q prometheus.Query) error {
	c.mu.Lock()
	if c.asked == nil {
		c.asked = map[string]int{}
	}
	c.asked[q.Expression]++
	c.mu.Unlock()
	if e.URL != "http://good" {
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
		return errors.New("no answer in time")
	}
	if q.Expression == "sum(((" {
		return fmt.Errorf("%w: parse error", prometheus.ErrBadQuery)
	}
	return nil
}

func TestQueriesAreCheckedOnce(t *testing.T) {
	policies := []*v1alpha1.RolloutPolicy{asking("shop", "broken", "good", "up", "sum((("), asking("shop", "fine", "good", "up")}
	c := cluster(t, namespace("shop", true), policies[0], policies[1]).Build()
	prom := &checker{}
	p := &Policies{Client: c, Check: prom.check}
	for range 2 {
		if again := pass(t, p, "shop"); again != 0 {
			t.Errorf("all is known, and yet it goes on in %v", again)
		}
	}
	if d := cmp.Diff(map[string]int{"up": 1, "sum(((": 1}, prom.asked); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	got := []string{accepts(stored(t, c, policies[0]).Status), accepts(stored(t, c, policies[1]).Status)}
	if d := cmp.Diff([]string{`False Invalid the query of metric "sum(((" can't be used`, "True Accepted can be used"}, got); d != "" {
		t.Errorf("conditions (-want +got):\n%s", d)
	}
	for _, policy := range policies {
		if err := c.Delete(t.Context(), policy); err != nil {
			t.Fatal(err)
		}
	}
	pass(t, p, "shop")
	if len(p.checked) != 0 {
		t.Errorf("of policies that are gone it remembers %v", p.checked)
	}
}

// A rate is asked about with both of its queries: that they select counters is of no use for a query that needs one number.
func TestARateIsCheckedAsOne(t *testing.T) {
	rate := asking("shop", "rate", "good", "up")
	rate.Spec.Analysis.Metrics = append(rate.Spec.Analysis.Metrics, v1alpha1.Metric{Name: "failed", MetricSpec: v1alpha1.MetricSpec{
		Rate: &v1alpha1.MetricRate{Numerator: `x{revision="{{.Revision}}"}`, Denominator: `scalar(x{revision="{{.Revision}}"})`},
	}})
	c := cluster(t, namespace("shop", true), rate).Build()
	var asked []prometheus.Query
	p := &Policies{Client: c, Check: func(_ context.Context, _ Endpoint, q prometheus.Query) error {
		asked = append(asked, q)
		if q.Denominator != "" {
			return fmt.Errorf("its denominator: %w: it gives one number", prometheus.ErrBadQuery)
		}
		return nil
	}}
	pass(t, p, "shop")
	want := []prometheus.Query{{Expression: "up"}, {Expression: `x{revision="{{.Revision}}"}`, Denominator: `scalar(x{revision="{{.Revision}}"})`}}
	if d := cmp.Diff(want, asked); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	if got := accepts(stored(t, c, rate).Status); got != `False Invalid the query of metric "failed" can't be used` {
		t.Errorf("the condition is %q", got)
	}
}

// An address whose certificate is not trusted is no good, whether or not the policy has queries of its own or a Secret.
func TestAnAddressThatCanBeRefusedIsGreeted(t *testing.T) {
	plain, tls := asking("shop", "plain", "good"), asking("shop", "tls", "good")
	tls.Spec.Analysis.Prometheus.URL = "https://good"
	c := cluster(t, namespace("shop", true), plain, tls).Build()
	refuse := func(_ context.Context, _ Endpoint, _ prometheus.Query) error {
		return fmt.Errorf("%w: its certificate is not trusted", prometheus.ErrAccess)
	}
	if again := pass(t, &Policies{Client: c, Check: refuse}, "shop"); again != checkAgain {
		t.Errorf("it is asked again in %v, want %v", again, checkAgain)
	}
	got := []string{accepts(stored(t, c, plain).Status), accepts(stored(t, c, tls).Status)}
	if got[0] != "True Accepted can be used" || !strings.HasPrefix(got[1], "False Invalid") {
		t.Errorf("conditions %q, want the second one to be refused", got)
	}
}

// Whoever names addresses that never answer must cost nobody else's conditions, and of his own policies
// only what would have to be asked there.
func TestQueriesThatAreNeverAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := []client.Object{namespace("shop", true), namespace("evil", true), workloadIn("shop", "web")}
		var evil []*v1alpha1.RolloutPolicy
		for i := range 3 {
			evil = append(evil, asking("evil", fmt.Sprint(i), "dead", fmt.Sprint(i, "a"), fmt.Sprint(i, "b")))
			objects = append(objects, evil[i])
		}
		broken := asking("shop", "broken", "good", "sum(((")
		c := cluster(t, append(objects, broken)...).Build()
		prom := &checker{}
		p := &Policies{Client: c, Check: prom.check}

		began := time.Now()
		again := make(chan time.Duration)
		go func() { again <- pass(t, p, "evil") }()
		synctest.Wait()
		pass(t, p, "shop")
		if took, got := time.Since(began), accepts(stored(t, c, broken).Status); took != 0 || got != `False Invalid the query of metric "sum(((" can't be used` {
			t.Errorf("the other namespace had to wait %v for its condition %q", took, got)
		}
		if next := <-again; time.Since(began) != checkTime || next != checkSoon {
			t.Errorf("the pass took %v and goes on in %v; want %v and %v", time.Since(began), next, checkTime, checkSoon)
		}
		for _, policy := range evil {
			if got := accepts(stored(t, c, policy).Status); got != "True Accepted can be used" {
				t.Errorf("policy %s: %s", policy.Name, got)
			}
		}
		passes := 1
		for ; pass(t, p, "evil") != checkAgain; passes++ {
			if passes > 5 {
				t.Fatal("it does not get any further")
			}
		}
		// Those that had less than their time are asked once more.
		want := map[string]int{"sum(((": 1, "0a": 1, "0b": 1, "1a": 2, "1b": 1, "2a": 2, "2b": 1}
		if d := cmp.Diff(want, prom.asked); d != "" {
			t.Errorf("asked (-want +got):\n%s", d)
		}
		time.Sleep(checkAgain)
		before := prom.asked["0a"]
		for range 3 {
			pass(t, p, "evil")
		}
		if prom.asked["0a"] != before+1 {
			t.Errorf("a minute later it was asked %d times more, want once", prom.asked["0a"]-before)
		}
	})
}

// A cluster's policy that uses a Secret uses another one in each namespace: nobody can ask for all of them.
func TestQueriesOfAClustersPolicyWithASecret(t *testing.T) {
	policy := &v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: asking("", "all", "good", "up").Spec}
	policy.Spec.Analysis.Prometheus.SecretRef = &v1alpha1.SecretRef{Name: "prometheus"}
	prom := &checker{}
	p := &Policies{Client: cluster(t, policy).Build(), Check: prom.check}
	if again := pass(t, p, ""); again != 0 || len(prom.asked) != 0 {
		t.Errorf("asked %v, and goes on in %v", prom.asked, again)
	}
}

// A Secret that is no good is told when the policy is written or it goes, not when a rollout has no data; and not when Prometheus only
// does not answer.
func TestASecretIsTriedWhenAPolicyNamesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := asking("shop", "web", "guarded")
		policy.Spec.Analysis.Prometheus.SecretRef = &v1alpha1.SecretRef{Name: "prometheus"}
		c := cluster(t, namespace("shop", true), policy).Build()
		answer := fmt.Errorf("%w: there is no Secret", prometheus.ErrAccess)
		asked := 0
		p := &Policies{Client: c, Check: func(_ context.Context, e Endpoint, _ prometheus.Query) error {
			if e != (Endpoint{URL: "http://guarded", Secret: types.NamespacedName{Namespace: "shop", Name: "prometheus"}}) {
				t.Errorf("asked %+v", e)
			}
			asked++
			return answer
		}}
		const refused = "False Invalid Prometheus can't be asked"
		for _, step := range []struct {
			answer error
			again  time.Duration
			want   string
		}{
			{answer, checkAgain, refused},
			{errors.New("no answer in time"), checkAgain, refused},
			{nil, checkAgain, "True Accepted can be used"},
			{errors.New("no answer in time"), checkAgain, "True Accepted can be used"},
			{answer, checkAgain, refused}, // it was deleted
		} {
			answer = step.answer
			if again := pass(t, p, "shop"); again != step.again {
				t.Errorf("it goes on in %v, want %v", again, step.again)
			}
			if d := cmp.Diff(step.want, accepts(stored(t, c, policy).Status)); d != "" {
				t.Errorf("after %v (-want +got):\n%s", step.answer, d)
			}
			time.Sleep(checkAgain)
		}
		if asked != 5 {
			t.Errorf("asked %d times, want 5", asked)
		}
	})
}

// Whoever may write policies in any namespace could have any address asked.
func TestQueriesOfNamespacesThatAreNotEnabledAreNotAsked(t *testing.T) {
	policy := asking("lab", "web", "good", "up")
	prom := &checker{}
	p := &Policies{Client: cluster(t, namespace("lab", false), policy).Build(), Check: prom.check}
	if again := pass(t, p, "lab"); again != 0 || len(prom.asked) > 0 {
		t.Errorf("asked %v, and again in %s", prom.asked, again)
	}
}

// What a Prometheus says may be longer than a condition can be; it must not keep others from theirs.
func TestALongAnswerIsCut(t *testing.T) {
	first, second := asking("shop", "a", "good", "up"), policyIn("shop", "b", 1)
	long := func(context.Context, Endpoint, prometheus.Query) error {
		return fmt.Errorf("%w: %s", prometheus.ErrBadQuery, strings.Repeat("x", 60_000))
	}
	refused := errors.New("refused")
	c := cluster(t, namespace("shop", true), first, second).WithInterceptorFuncs(interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			if o.GetName() == "a" {
				if n := len(o.(*v1alpha1.RolloutPolicy).Status.Conditions[0].Message); n > 32768 {
					t.Errorf("a message of %d bytes", n)
				}
				return refused
			}
			return c.SubResource(sub).Update(ctx, o, opts...)
		},
	}).Build()
	p := &Policies{Client: c, Check: long}
	if _, err := p.Reconcile(t.Context(), policiesOf("shop")); !errors.Is(err, refused) {
		t.Errorf("the error is %v", err)
	}
	if len(stored(t, c, second).Status.Conditions) == 0 {
		t.Error("the other policy has no condition")
	}
}
