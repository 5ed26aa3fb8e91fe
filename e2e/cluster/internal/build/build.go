// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package build makes what a cluster is made of: the distribution's packages, the
// programs compiled from their Go modules, and the images. Everything is kept in one
// folder, .cache in the repository, by version and content; what is there is not made
// again.
package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/e2e/cluster/internal/progress"
)

// Builder builds into the cache of one repository.
type Builder struct {
	// Repo is the root of the repository.
	Repo string
	Log  *progress.Log
}

// FindRepo returns the root of the repository that the folder is in.
func FindRepo(dir string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "e2e", "cluster", "kubernetes", "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%q isn't in a clone of the repository: nothing could be built", dir)
		}
	}
}

// ProgramNames lists what Program can build or fetch.
func ProgramNames() []string {
	names := []string{"kubernetes"}
	for _, p := range programs {
		names = append(names, p.name)
	}
	return append(names, "envoy", "prometheus")
}

// Program returns the path of a program, which it builds or fetches if the cache hasn't got it. Of Kubernetes it is the
// default version.
func (b Builder) Program(ctx context.Context, name string) (string, error) {
	switch name {
	case "kubernetes":
		return b.Kubernetes(ctx, DefaultKubernetes)
	case "envoy":
		return b.envoy(ctx)
	case "prometheus":
		return b.prometheus(ctx)
	}
	i := slices.IndexFunc(programs, func(p program) bool { return p.name == name })
	if i < 0 {
		return "", fmt.Errorf("unknown program %q, want one of %s", name, strings.Join(ProgramNames(), ", "))
	}
	return b.program(ctx, programs[i])
}

// Kubernetes returns the path of the program that is all of Kubernetes, of a minor version such as 1.36.
func (b Builder) Kubernetes(ctx context.Context, minor string) (string, error) {
	p, err := kubernetes(minor)
	if err != nil {
		return "", err
	}
	return b.program(ctx, p)
}

func (b Builder) program(ctx context.Context, p program) (string, error) {
	key, err := b.key(p)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.cache("bin", key), p.name)
	unlock, err := b.lock(key)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		err = b.compile(ctx, p, path)
		if err != nil {
			return "", err
		}
	}
	for _, link := range p.links {
		if err := replaceLink(path, b.cache("bin", link)); err != nil {
			return "", err
		}
	}
	return path, nil
}

// key names a program's folder in the cache: by version, and by content where the
// source is in this repository.
func (b Builder) key(p program) (string, error) {
	key := p.name + "-" + p.version
	if p.module == "" {
		return key, nil
	}
	sources, err := filepath.Glob(filepath.Join(b.module(p), "*.go"))
	if err != nil {
		return "", err
	}
	modfile := filepath.Join(b.module(p), cmp.Or(p.modfile, "go.mod"))
	sum, err := hashFiles(append(sources, modfile, strings.TrimSuffix(modfile, ".mod")+".sum"))
	return key + "-" + sum[:8], err
}

// compile builds a program to the path, whole or not at all.
func (b Builder) compile(ctx context.Context, p program, path string) (err error) {
	temporary := path + ".building"
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	flags := "-s -w"
	for _, variable := range p.versionVariables {
		flags += " -X " + variable + "=" + p.version
	}
	args := []string{"-trimpath", "-buildvcs=false", "-ldflags", flags}
	if p.module != "" {
		build := []string{"build", "-C", b.module(p)}
		if p.modfile != "" {
			build = append(build, "-modfile", p.modfile)
		}
		args = slices.Concat(build, args, []string{"-o", filepath.Join(temporary, p.name), "."})
	} else {
		args = slices.Concat([]string{"install"}, args, []string{p.install + "@" + p.version})
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	// Flags of the caller's, such as -mod=vendor, are meant for his module.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOBIN="+temporary)
	step := b.Log.Start(fmt.Sprintf("building %s %s", p.name, p.version), fmt.Sprintf("about %g min the first time", p.cold.Minutes()))
	defer func() { step.Done(err) }()
	if err := run(cmd); err != nil {
		return err
	}
	return os.Rename(filepath.Join(temporary, p.name), path)
}

// goBuild compiles a package of this repository's own. The build cache of Go decides what
// has to be done.
func (b Builder) goBuild(ctx context.Context, module, pkg, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-C", module, "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	return run(cmd)
}

func (b Builder) module(p program) string { return b.here(p.module) }

// here returns a path in the folder of this module.
func (b Builder) here(elem ...string) string {
	return filepath.Join(append([]string{b.Repo, "e2e", "cluster"}, elem...)...)
}

func (b Builder) cache(elem ...string) string {
	return filepath.Join(append([]string{b.Repo, ".cache"}, elem...)...)
}

// lock keeps another command from building the same thing at the same time.
func (b Builder) lock(name string) (unlock func(), err error) {
	if err := os.MkdirAll(b.cache("lock"), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(b.cache("lock", name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("locking %q: %w", name, err)
	}
	return func() { _ = file.Close() }, nil
}

// run executes a command that is silent when it succeeds; its output is part of the error.
func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("running %s: %w\n%s", strings.Join(cmd.Args, " "), err, lastLines(string(out), 40))
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// replaceLink makes a link that is right wherever the folder of both is moved to.
func replaceLink(path, link string) error {
	target, err := filepath.Rel(filepath.Dir(link), path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if old, err := os.Readlink(link); err == nil && old == target {
		return nil
	}
	temporary := link + ".new"
	_ = os.Remove(temporary)
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, link)
}

// hashFiles returns one sum over the names and contents of files, in any order.
func hashFiles(paths []string) (string, error) {
	paths = slices.Sorted(slices.Values(paths))
	sum := sha256.New()
	for _, path := range paths {
		content, err := hashFile(path)
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(sum, "%s %s\n", content, filepath.Base(path))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
