// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/headgate/headgate/internal/simulate"
)

// TestModelsAreFaithful: in random histories everything is the same with the models as with the real controllers.
// HEADGATE_SIMULATE_SEED is the first seed, HEADGATE_SIMULATE_HISTORIES how many there are.
func TestModelsAreFaithful(t *testing.T) {
	first, n := setting(t, "HEADGATE_SIMULATE_SEED", 1), setting(t, "HEADGATE_SIMULATE_HISTORIES", 20)
	k, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for seed := first; seed < first+n; seed++ {
		h := simulate.Random(seed)
		if seed%2 == 0 {
			h = withoutHeadgate(h)
		}
		seconds, difference := compare(t, h, k.In)
		if total += seconds; difference != "" {
			t.Fatalf("seed %d: %s\n%s", seed, difference, h)
		}
	}
	t.Logf("%d seconds of %d histories, from seed %d on", total, n, first)
}

// TestDifferencesAreFound: each of the three decisions is compared.
func TestDifferencesAreFound(t *testing.T) {
	k, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, bug := range map[string]func(simulate.Controllers) simulate.Controllers{
		"a Deployment controller that never changes anything": func(c simulate.Controllers) simulate.Controllers { return idle{c} },
		"a ReplicaSet controller that never makes a pod":      func(c simulate.Controllers) simulate.Controllers { return stingy{c} },
		"an autoscaler that adds one":                         func(c simulate.Controllers) simulate.Controllers { return generous{c} },
	} {
		t.Run(name, func(t *testing.T) {
			h := simulate.History{"hpa on", "load 4", "replicas 4", "create v1", "run 40s"}
			if _, difference := compare(t, h, k.In); difference != "" {
				t.Fatalf("without the bug: %s", difference)
			}
			buggy := func(d, r *simulate.Cluster) simulate.Controllers { return bug(k.In(d, r)) }
			if _, difference := compare(t, h, buggy); difference == "" {
				t.Error("nothing differs")
			}
		})
	}
}

type idle struct{ simulate.Controllers }

func (idle) SyncDeployment(*appsv1.Deployment) error { return nil }

type stingy struct{ simulate.Controllers }

func (stingy) SyncReplicaSet(*appsv1.ReplicaSet) error { return nil }

type generous struct{ simulate.Controllers }

func (g generous) Replicas(hpa *autoscalingv2.HorizontalPodAutoscaler, current int32, usage map[string]int64) (int32, error) {
	n, err := g.Controllers.Replicas(hpa, current, usage)
	return n + 1, err
}

func compare(t *testing.T, h simulate.History, with func(_, _ *simulate.Cluster) simulate.Controllers) (seconds int, difference string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if seconds, difference, err = simulate.Compare(h, with); err != nil {
			t.Fatal(err)
		}
	})
	return seconds, difference
}

// withoutHeadgate is a history in a namespace that is not enabled: the native controllers do more then.
func withoutHeadgate(h simulate.History) simulate.History {
	out := simulate.History{"enabled off"}
	for _, line := range h {
		switch words := strings.Fields(line); {
		case line == "enabled on":
			continue
		case words[0] == "slip":
			line = "set-image " + words[1]
		}
		out = append(out, line)
	}
	return out
}

func setting(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
