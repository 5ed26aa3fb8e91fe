// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// TestRandomHistories plays histories: always the same ones, so that a failure can be repeated; about ten
// seconds' worth of work. HEADGATE_SIMULATE_SEED is the first seed, HEADGATE_SIMULATE_HISTORIES how many there
// are, HEADGATE_SIMULATE_FOR, a duration, goes on to other seeds for so long (make simulate, make soak).
func TestRandomHistories(t *testing.T) {
	first, n := setting(t, "HEADGATE_SIMULATE_SEED", 1), setting(t, "HEADGATE_SIMULATE_HISTORIES", 100)
	if testing.Short() {
		n = min(n, 10)
	}
	lasting, err := time.ParseDuration(cmp.Or(os.Getenv("HEADGATE_SIMULATE_FOR"), "0s"))
	if err != nil {
		t.Fatal(err)
	}
	began, seed := time.Now(), first
	for ; seed < first+n || time.Since(began) < lasting; seed++ {
		playRandom(t, seed)
	}
	t.Logf("%d histories, from seed %d on, %.1f a second", seed-first, first, float64(seed-first)/time.Since(began).Seconds())
}

func playRandom(t *testing.T, seed int64) {
	t.Helper()
	h := Random(seed)
	v, err := Play(h, Options{})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if v == nil {
		return
	}
	t.Logf("seed %d: %s; looking for a shorter history", seed, v)
	short, v := Shrink(h, v, Options{})
	t.Fatalf("seed %d: %s\n\nThe shortest history found; as a file in internal/simulate/testdata it is a test:\n\n%s", seed, v, Script(short, v, seed))
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

// TestHistories plays those that were found once, and those that show what the simulation can express.
// HEADGATE_SIMULATE_TRACE prints every write.
func TestHistories(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no histories: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			h, err := ParseHistory(string(text))
			if err != nil {
				t.Fatal(err)
			}
			var o Options
			if os.Getenv("HEADGATE_SIMULATE_TRACE") != "" {
				o.Trace = func(line string) { t.Log(line) }
			}
			v, err := Play(h, o)
			if err != nil {
				t.Fatal(err)
			}
			if v != nil {
				t.Error(v)
			}
		})
	}
}

// TestQuarantineIsScaledIn: the autoscaler, which wants fewer pods than N throughout, gets its way once the candidate
// has done no work for as long as metrics look back, and not before.
func TestQuarantineIsScaledIn(t *testing.T) {
	w := newWorld()
	play := func(lines string, want int32) {
		t.Helper()
		h, err := ParseHistory(lines)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range h {
			if err := w.do(line); err != nil {
				t.Fatal(err)
			}
		}
		if n := *w.deployment().Spec.Replicas; n != want {
			t.Errorf("N is %d in phase %s, want %d", n, w.record().Phase, want)
		}
	}
	play("replicas 6\npolicy quarantine\ncreate v1\nrun 8s\nset-image v2\nrun 8s\nload 2\nhpa on\nrun 8s", 6)
	play("verdict v2 Fail\nrun 280s", 6)
	play("run 60s", 2)
	w.rest()
	if w.oracle.violation != nil {
		t.Error(w.oracle.violation)
	}
}

// TestUpdateOnTopOfWhatWasLetOut: two versions were bypassed, one after the other, and the native controller has taken all of
// stable's pods away when the next one comes. It is held, whenever it comes.
func TestUpdateOnTopOfWhatWasLetOut(t *testing.T) {
	for after := time.Duration(0); after < 10*time.Second; after += time.Second / 2 {
		w := newWorld()
		h, err := ParseHistory(fmt.Sprintf("replicas 3\ncreate v1\nrun 10s\nbypass v2\nrun 6s\nbypass v3\nrun %s\nset-image v4\nrun 3s", after))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range h {
			if err := w.do(line); err != nil {
				t.Fatal(err)
			}
		}
		stable := w.record().Stable.Hash
		rs := w.api.memory[replicaSets][keyOf(webKey.Namespace, webKey.Name+"-"+stable)].(*appsv1.ReplicaSet)
		if w.deployment().Annotations[v1alpha1.HoldAnnotation] == "" || w.record().Candidate.Hash == "" || rs.Status.ReadyReplicas == 0 {
			t.Errorf("after %s: %s, candidate %q, stable %s with %d ready pods; want the update held against what serves",
				after, w.record().Phase, w.record().Candidate.Hash, stable, rs.Status.ReadyReplicas)
		}
		w.rest()
		if w.oracle.violation != nil {
			t.Error(w.oracle.violation)
		}
	}
}
