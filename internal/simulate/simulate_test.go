// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRandomHistories plays histories for about ten seconds' worth of work: always the same ones, so that a
// failure can be repeated. HEADGATE_SIMULATE_SEED is the first seed, HEADGATE_SIMULATE_HISTORIES how many.
func TestRandomHistories(t *testing.T) {
	first, n := setting(t, "HEADGATE_SIMULATE_SEED", 1), setting(t, "HEADGATE_SIMULATE_HISTORIES", 100)
	began := time.Now()
	for seed := first; seed < first+n; seed++ {
		h := Random(seed)
		v, err := Play(h, Options{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if v != nil {
			short, v := Shrink(h, v, Options{})
			t.Fatalf("seed %d: %s\n\nThe shortest history found; as a file in testdata it is a test:\n\n%s", seed, v, Script(short, v, seed))
		}
	}
	t.Logf("%d histories from seed %d on, %.0f a second", n, first, float64(n)/time.Since(began).Seconds())
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
