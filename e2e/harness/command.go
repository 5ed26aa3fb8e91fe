// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Result is how a program ended.
type Result struct {
	// Line is what was typed.
	Line   string
	Stdout string
	Stderr string
	// Exit is its exit code; -1 when it was killed or did not start.
	Exit int
	// Took is how long it ran.
	Took time.Duration
}

// String is the whole story, for failures.
func (r Result) String() string {
	return fmt.Sprintf("$ %s\n%s%s(exit %d after %v)", r.Line, r.Stdout, r.Stderr, r.Exit, r.Took.Round(time.Millisecond))
}

// Err is nil when the program succeeded.
func (r Result) Err() error {
	if r.Exit == 0 {
		return nil
	}
	return errors.New(r.String())
}

// RunKubectl runs kubectl with this standard input.
func (c *Cluster) RunKubectl(ctx context.Context, stdin string, args ...string) Result {
	return c.run(ctx, c.Kubectl, stdin, args)
}

// RunHelm runs helm.
func (c *Cluster) RunHelm(ctx context.Context, args ...string) Result {
	return c.run(ctx, c.Helm, "", args)
}

// RunHeadgate runs the headgate command of this source tree.
func (c *Cluster) RunHeadgate(ctx context.Context, args ...string) Result {
	return c.run(ctx, "go", "", append([]string{"-C", c.Repo, "run", "./cmd/headgate"}, args...))
}

// localClusters is where e2e/cluster keeps what it makes, each cluster in a folder of its name.
const localClusters = "/var/lib/headgate-cluster"

// RestartComponents kills components of the cluster itself, kube-apiserver for example, and starts them again.
// Only a cluster that e2e/cluster made can do that; on others nothing happens, and local is false.
func (c *Cluster) RestartComponents(ctx context.Context, names ...string) (r Result, local bool) {
	dir, file := filepath.Split(c.Kubeconfig)
	if filepath.Dir(filepath.Clean(dir)) != localClusters || file != "kubeconfig" {
		return Result{}, false
	}
	args := append([]string{"-C", c.Repo + "/e2e/cluster", "run", ".", "restart", "--name", filepath.Base(dir)}, names...)
	return c.run(ctx, "go", "", args), true
}

func (c *Cluster) run(ctx context.Context, path, stdin string, args []string) Result {
	cmd := exec.CommandContext(ctx, path, args...)
	// Asked to end first, so that it can say what it waited for.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	r := Result{
		Line:   path + " " + strings.Join(args, " "),
		Stdout: stdout.String(), Stderr: stderr.String(),
		Exit: -1, Took: time.Since(start),
	}
	if cmd.ProcessState != nil {
		r.Exit = cmd.ProcessState.ExitCode()
	}
	if err != nil && r.Exit <= 0 {
		r.Exit, r.Stderr = -1, r.Stderr+err.Error()+"\n"
	}
	return r
}
