// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package golden compares what a test produced with what was reviewed and committed. With the flag
// -update the files are written instead; look at the diff before you commit it.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update is the only state: the test binary's flag.
var update = flag.Bool("update", false, "write golden files instead of comparing with them")

// Check compares got with the file at path.
func Check(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		if err := write(path, got); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test with -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got; go test with -update accepts):\n%s", path, diff)
	}
}

// CheckAll compares a whole set of files, by path. Files that match the pattern but are not in the set
// are stale: an error, or removed with -update.
func CheckAll(t testing.TB, pattern string, got map[string][]byte) {
	t.Helper()
	there, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range got {
		Check(t, path, content)
	}
	for _, path := range there {
		if _, ok := got[path]; ok {
			continue
		}
		if !*update {
			t.Errorf("%s is stale: nothing produces it (go test with -update removes it)", path)
		} else if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

func write(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && slices.Equal(old, content) {
		return nil // keeps the time stamp, and with it the test cache
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
