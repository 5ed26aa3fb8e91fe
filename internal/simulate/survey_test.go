package simulate

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"
)

func TestSurvey(t *testing.T) {
	if os.Getenv("SURVEY") == "" {
		t.Skip()
	}
	first, n := setting(t, "HEADGATE_SIMULATE_SEED", 1), setting(t, "HEADGATE_SIMULATE_HISTORIES", 100)
	type hit struct {
		n     int
		seed  int64
		h     History
		v     *Violation
	}
	seen := map[string]*hit{}
	for seed := first; seed < first+n; seed++ {
		h := Random(seed)
		v, err := Play(h, Options{})
		if err != nil {
			t.Fatal(seed, err)
		}
		if v == nil {
			continue
		}
		key := string(v.Invariant) + " | " + strings.Join(strings.FieldsFunc(v.Message, func(r rune) bool { return r >= '0' && r <= '9' }), "#")
		if len(key) > 90 {
			key = key[:90]
		}
		if seen[key] == nil {
			seen[key] = &hit{0, seed, h, v}
		}
		seen[key].n++
	}
	var keys []string
	for k := range seen {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return seen[keys[i]].n > seen[keys[j]].n })
	for i, k := range keys {
		s := seen[k]
		fmt.Printf("%4d seed %d: %s\n", s.n, s.seed, k)
		if i < 6 {
			short, v := Shrink(s.h, s.v, Options{})
			fmt.Printf("%s\n", Script(short, v, s.seed))
		}
	}
}
