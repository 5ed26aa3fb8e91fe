// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestSpliceReplacesWhatIsBetweenTheMarkers(t *testing.T) {
	got, err := splice("a\n"+begin+"old\n"+end+"b\n", "new\n")
	if want := "a\n" + begin + "\nnew\n" + end + "b\n"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if _, err := splice("no markers", "new"); err == nil {
		t.Error("a document without markers was taken")
	}
}

func TestTablesHaveARowForEachWorld(t *testing.T) {
	if rows := row("a", "b") + row("c", "d"); rows != "| a | b |\n| c | d |\n" {
		t.Errorf("got %q", rows)
	}
}
