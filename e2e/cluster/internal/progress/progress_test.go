// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

func TestLogToAFile(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	log := New(file)
	build := log.Start("building etcd", "about 2 min the first time")
	quick := log.Start("preparing", "")
	quick.Done(nil)
	build.Done(errors.New("no space left"))
	log.Summary("cluster dev is up")
	got, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	// Only what may take long is announced, and no line is rewritten.
	want := regexp.MustCompile(`^building etcd … \(about 2 min the first time\)
preparing … 0\.\ds
building etcd … 0\.\ds failed
cluster dev is up after 0\.\ds, of which
$`)
	if !want.Match(got) {
		t.Errorf("got:\n%s", got)
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		40 * time.Millisecond:                  "0.0s",
		12340 * time.Millisecond:               "12.3s",
		3*time.Minute + 12345*time.Millisecond: "3m12s",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%s) = %q, want %q", d, got, want)
		}
	}
}
