// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/e2e/cluster/internal/config"
	"github.com/headgate/headgate/e2e/cluster/internal/network"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
	"github.com/headgate/headgate/e2e/cluster/internal/process"
)

// bench is the command under test, built, and the kubectl that comes with it.
type bench struct {
	*testing.T
	command string
	kubectl string
}

// newBench skips the test unless it was asked for: it makes real clusters, on this machine, as root.
func newBench(t *testing.T) bench {
	t.Helper()
	if os.Getenv("HEADGATE_CLUSTER_TEST") == "" || os.Geteuid() != 0 {
		t.Skip("set HEADGATE_CLUSTER_TEST=1, and be root, to run tests that make clusters")
	}
	b := bench{T: t, command: filepath.Join(t.TempDir(), "cluster")}
	if out, err := exec.Command("go", "build", "-o", b.command, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the command: %v\n%s", err, out)
	}
	b.kubectl = filepath.Join(filepath.Dir(strings.TrimSpace(b.run("build", "kubernetes"))), "..", "kubectl")
	return b
}

func TestTwoClustersSideBySide(t *testing.T) {
	b := newBench(t)
	first, second := plan.Cluster{Name: "test-a"}, plan.Cluster{Name: "test-ab"}
	for _, c := range []plan.Cluster{first, second} {
		b.run("down", "--name", c.Name)
		t.Cleanup(func() { b.run("down", "--name", c.Name) })
	}

	var both sync.WaitGroup
	for _, c := range []plan.Cluster{first, second} {
		both.Go(func() { b.run("up", "--name", c.Name) })
	}
	both.Wait()
	for _, c := range []plan.Cluster{first, second} {
		b.runPod(c)
		b.run("nsenter", "--name", c.Name, "--", "getent", "hosts", "kubernetes")
	}

	before := records(b, first)
	path := b.run("up", "--name", first.Name)
	if strings.TrimSpace(path) != first.Kubeconfig() {
		t.Errorf("up printed %q, want the path of the kubeconfig alone", path)
	}
	if after := records(b, first); !slices.Equal(before, after) {
		t.Errorf("up of a cluster that runs replaced processes: %v, then %v", before, after)
	}

	// A configuration of another version is replaced, and kube-proxy started again.
	proxy := second.Path("kube-proxy.yaml")
	if content, err := os.ReadFile(proxy); err != nil {
		t.Error(err)
	} else if err := os.WriteFile(proxy, append(content, "# older\n"...), 0o600); err != nil {
		t.Error(err)
	}
	b.run("up", "--name", second.Name)

	containers := b.containers(second)
	// The second loses everything at once, and its namespace's name too.
	for _, pid := range pidsOf(second) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err := exec.Command("ip", "netns", "delete", second.Namespace()).Run(); err != nil {
		t.Error(err)
	}
	b.run("down", "--name", second.Name)
	b.nothingLeft(second, containers...)

	b.podReady(first)
	containers = b.containers(first)
	b.run("down", "--name", first.Name)
	b.nothingLeft(first, containers...)
	b.run("down", "--name", first.Name)
}

func TestUpRepairsWhatWasKilled(t *testing.T) {
	b := newBench(t)
	c := plan.Cluster{Name: "test-c"}
	t.Cleanup(func() { b.run("down", "--name", c.Name) })
	b.run("up", "--name", c.Name)
	b.runPod(c)

	containers := b.containers(c)
	for _, name := range []string{config.Kubelet, config.Containerd, config.APIServer} {
		record, err := process.Load(c.Record(name))
		if err != nil || !record.Alive() {
			t.Fatalf("%s doesn't run: %+v, %v", name, record, err)
		}
		_ = syscall.Kill(record.PID, syscall.SIGKILL)
	}
	// The containers are left without anyone who looks after them.
	for _, pid := range pidsOf(c) {
		args, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if bytes.Contains(args, []byte("containerd-shim")) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	b.run("up", "--name", c.Name)
	b.podReady(c)
	containers = append(containers, b.containers(c)...)
	b.run("down", "--name", c.Name)
	b.nothingLeft(c, containers...)
}

func TestDownAfterUpWasKilled(t *testing.T) {
	b := newBench(t)
	c := plan.Cluster{Name: "test-d"}
	t.Cleanup(func() { b.run("down", "--name", c.Name) })
	for _, after := range []time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second} {
		ctx, cancel := context.WithTimeout(context.Background(), after)
		err := exec.CommandContext(ctx, b.command, "up", "--name", c.Name).Run()
		cancel()
		t.Logf("killed after %s: %v", after, err)
		b.run("down", "--name", c.Name)
		b.nothingLeft(c)
	}

	// What was killed half-way can also be brought up.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	_ = exec.CommandContext(ctx, b.command, "up", "--name", c.Name).Run()
	cancel()
	b.run("up", "--name", c.Name)
	b.runPod(c)
}

func TestUpSaysWhyAComponentEnds(t *testing.T) {
	b := newBench(t)
	c := plan.Cluster{Name: "test-e"}
	t.Cleanup(func() { b.run("down", "--name", c.Name); b.nothingLeft(c) })
	b.run("up", "--name", c.Name)
	b.run("stop", "--name", c.Name, config.Kubelet)
	if err := os.WriteFile(c.Path("pki", "kubelet-serving.key"), []byte("Nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(b.command, "up", "--name", c.Name).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("kubelet ended")) || !bytes.Contains(out, []byte("failed to find any PEM data")) {
		t.Errorf("up of a cluster with a broken kubelet: %v\n%s", err, out)
	}
}

// run runs the command under test, which must succeed, and returns its standard output.
func (b bench) run(args ...string) string {
	b.Helper()
	cmd := exec.Command(b.command, args...)
	var progress bytes.Buffer
	cmd.Stderr = &progress
	start := time.Now()
	out, err := cmd.Output()
	if err != nil {
		b.Errorf("cluster %s: %v\n%s%s", strings.Join(args, " "), err, out, progress.Bytes())
	}
	b.Logf("%6.1fs  cluster %s", time.Since(start).Seconds(), strings.Join(args, " "))
	return string(out)
}

// runPod runs a pod and waits until it is ready.
func (b bench) runPod(c plan.Cluster) {
	b.Helper()
	b.kube(c, "run", "holder", "--image", config.PauseImage, "--image-pull-policy", "IfNotPresent")
	b.podReady(c)
}

func (b bench) podReady(c plan.Cluster) {
	b.Helper()
	b.kube(c, "wait", "--for=condition=Ready", "pod/holder", "--timeout=60s")
}

func (b bench) kube(c plan.Cluster, args ...string) {
	b.Helper()
	args = append([]string{"--kubeconfig", c.Kubeconfig()}, args...)
	if out, err := exec.Command(b.kubectl, args...).CombinedOutput(); err != nil {
		b.Errorf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// containers lists the first processes of a cluster's containers, as containerd knows them.
func (b bench) containers(c plan.Cluster) []process.Record {
	b.Helper()
	out, err := exec.Command("ctr", "--address", c.ContainerdSocket(), "--namespace", "k8s.io", "tasks", "list").Output()
	if err != nil {
		b.Fatalf("listing the containers of cluster %q: %v", c.Name, err)
	}
	var all []process.Record
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line) // id, process, state
		pid, err := strconv.Atoi(fields[1])
		if err != nil {
			continue // the heading
		}
		record, err := process.Observe(pid)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, record)
	}
	// A pod's pause container, and its own.
	if len(all) < 2 {
		b.Fatalf("cluster %q has containers %v", c.Name, all)
	}
	return all
}

// nothingLeft looks for traces of a cluster in every place where one could leave some. It doesn't
// use what Down uses to find them.
func (b bench) nothingLeft(c plan.Cluster, containers ...process.Record) {
	b.Helper()
	for _, container := range containers {
		if container.Alive() {
			b.Errorf("process %d of a container of cluster %q is left", container.PID, c.Name)
		}
	}
	if pids := pidsOf(c); len(pids) > 0 {
		b.Errorf("processes %v of cluster %q are left", pids, c.Name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.Dir()+"/") || strings.Contains(line, network.Path(c)+" ") {
			b.Errorf("a mount is left: %s", line)
		}
	}
	for _, pattern := range []string{
		c.Dir(), network.Path(c), "/sys/class/net/" + c.HostLink(),
		"/sys/fs/cgroup/*" + c.Cgroup(), "/sys/fs/cgroup" + c.Cgroup(),
		"/var/lib/cni/results/" + c.CNINetwork() + "-????????????????????????????????????????????????????????????????-*",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			b.Errorf("left: %q", found)
		}
	}
	links, _ := filepath.Glob("/var/log/containers/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, c.Dir()+"/") {
			b.Errorf("a link is left: %s", link)
		}
	}
}

// pidsOf lists the processes that have the cluster in their arguments or control group.
func pidsOf(c plan.Cluster) []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || len(args) == 0 {
			continue
		}
		if bytes.Contains(args, []byte(c.Dir()+"/")) || bytes.Contains(cgroup, []byte(":"+c.Cgroup()+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// records lists which process each component is.
func records(b bench, c plan.Cluster) []string {
	b.Helper()
	var all []string
	for _, component := range config.Components(c, "") {
		record, err := process.Load(c.Record(component.Name))
		if err != nil {
			b.Error(err)
		}
		all = append(all, fmt.Sprintf("%s %d", component.Name, record.PID))
	}
	return all
}
