// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	tail := " S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 98765 1604256 83079"
	for name, tc := range map[string]struct {
		text  string
		state byte
		ticks uint64
		fails bool
	}{
		"a plain command":                     {"42 (kubelet)" + tail, 'S', 98765, false},
		"a command with spaces and brackets":  {"42 (a) R 1 (b c)" + tail, 'S', 98765, false},
		"a zombie":                            {"42 (etcd)" + strings.Replace(tail, " S ", " Z ", 1), 'Z', 98765, false},
		"cut short":                           {"42 (etcd) S 1 42", 0, 0, true},
		"no command":                          {"42", 0, 0, true},
		"a start time that isn't a number":    {"42 (etcd)" + strings.Replace(tail, "98765", "soon", 1), 0, 0, true},
		"nothing, as of a process just ended": {"", 0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat([]byte(tc.text))
			if (err != nil) != tc.fails || !tc.fails && got != (stat{tc.state, tc.ticks}) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestOwns(t *testing.T) {
	o := Owner{Cgroup: "/headgate-a", Dir: "/var/lib/headgate-cluster/a"}
	ours := inode{4, 4026532301}
	shim := "/usr/bin/containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00-address\x00"
	for name, tc := range map[string]struct {
		namespace inode
		facts     facts
		want      bool
	}{
		"a component, by its namespace":            {ours, facts{namespace: ours}, true},
		"another cluster's component":              {ours, facts{namespace: inode{4, 4026532302}}, false},
		"a process that has gone":                  {ours, facts{}, false},
		"one that has gone, when the cluster has":  {inode{}, facts{}, false},
		"a container, version 1":                   {ours, facts{cgroup: "4:memory:/headgate-a/0123\n1:name=systemd:/headgate-a/0123\n"}, true},
		"a container, version 2":                   {ours, facts{cgroup: "0::/headgate-a/0123\n"}, true},
		"a container of a cluster with our prefix": {ours, facts{cgroup: "0::/headgate-ab/0123\n"}, false},
		"a shim whose namespace file is gone":      {inode{}, facts{args: shim + o.Dir + "/containerd.sock\x00-id\x000123"}, true},
		"another cluster's shim":                   {inode{}, facts{args: shim + "/var/lib/headgate-cluster/ab/containerd.sock"}, false},
		"a component whose namespace file is gone": {inode{}, facts{args: "/cache/kubernetes\x00etcd\x00--data-dir=" + o.Dir + "/etcd"}, true},
		"another cluster's component of that kind": {inode{}, facts{args: "/cache/kubernetes\x00etcd\x00--data-dir=" + o.Dir + "b/etcd"}, false},
		"someone who looks at a file":              {inode{}, facts{args: "less\x00" + o.Dir + "/log/etcd.log"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := o.owns(tc.namespace, tc.facts); got != tc.want {
				t.Errorf("owns = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestRecordOfAProcess(t *testing.T) {
	dir := t.TempDir()
	record, exited, err := Start(Spec{Args: []string{"/bin/sh", "-c", "echo started; exec sleep 1000"}, Dir: dir, Log: filepath.Join(dir, "log", "sleep.log")})
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "log", "sleep.log")
	for deadline := time.Now().Add(10 * time.Second); Tail(log, 1) != "started"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log ends with %q", Tail(log, 1))
		}
	}
	path := filepath.Join(dir, "process", "sleep.json")
	if err := record.Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(path)
	if err != nil || loaded != record {
		t.Fatalf("loaded %+v, %v; saved %+v", loaded, err, record)
	}
	if !loaded.Alive() {
		t.Error("it isn't alive though it has just been started")
	}
	for name, other := range map[string]Record{
		"the id used again":  {record.PID, record.StartTicks + 1, record.BootID},
		"after another boot": {record.PID, record.StartTicks, "another"},
		"no record":          {},
	} {
		if other.Alive() {
			t.Errorf("%s: it is alive", name)
		}
		if err := other.End(time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !record.Alive() {
		t.Fatal("ending records of other processes ended this one")
	}
	if err := record.End(5 * time.Second); err != nil {
		t.Error(err)
	}
	if record.Alive() {
		t.Error("it is alive after its end")
	}
	if err := <-exited; err == nil {
		t.Error("its end was no error")
	}
}

func TestLoadWhatIsNoRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd.json")
	if record, err := Load(path); err != nil || record.Alive() {
		t.Errorf("a missing file: %+v, %v", record, err)
	}
	if err := os.WriteFile(path, []byte(`{"pid":`), 0o644); err != nil {
		t.Fatal(err)
	}
	if record, err := Load(path); err != nil || record.Alive() {
		t.Errorf("a damaged file: %+v, %v", record, err)
	}
}
