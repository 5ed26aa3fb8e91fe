// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Release is what a commit of this repository would have been as a release.
type Release struct {
	// Images of the control plane and of the sidecar, with the commit as their tag.
	Images []Image
	// Chart is an archive whose appVersion, and so the tag of its images by default, is the commit.
	Chart string
}

// Release builds an earlier commit as a release is built. Only what is the project's own is of that commit:
// Envoy comes from the same image as today's.
func (b Builder) Release(ctx context.Context, revision string) (Release, error) {
	commit, err := b.commit(ctx, revision)
	if err != nil {
		return Release{}, err
	}
	tag := commit[:12]
	source := b.cache("source", tag)
	unlock, err := b.lock("source")
	if err != nil {
		return Release{}, err
	}
	defer unlock()
	err = b.fetch(source, "taking "+tag+" out of the repository", func(temporary string) error { return b.extract(ctx, commit, temporary) })
	if err != nil {
		return Release{}, err
	}
	var release Release
	for _, r := range releaseRecipes(tag) {
		image, err := b.image(ctx, r)
		if err != nil {
			return Release{}, err
		}
		release.Images = append(release.Images, image)
	}
	release.Chart, err = b.packageChart(ctx, source, tag)
	return release, err
}

// commit returns the whole hash of a revision.
func (b Builder) commit(ctx context.Context, revision string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", "-C", b.Repo, "rev-parse", "--verify", "--quiet", "--end-of-options", revision+"^{commit}").Output()
	if err != nil {
		return "", fmt.Errorf("this clone has no commit %q (a shallow one gets it by git fetch --unshallow): %w", revision, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (b Builder) extract(ctx context.Context, commit, dir string) error {
	archive := filepath.Join(dir, "source.tar")
	if err := run(exec.CommandContext(ctx, "git", "-C", b.Repo, "archive", "--output", archive, commit)); err != nil {
		return err
	}
	if err := run(exec.CommandContext(ctx, "tar", "-xf", archive, "-C", dir)); err != nil {
		return err
	}
	return os.Remove(archive)
}

// releaseRecipes are the project's own images, made from the sources of another commit. They have names of their
// own, so that those of today stay in the cache.
func releaseRecipes(tag string) []recipe {
	var recipes []recipe
	for _, name := range []string{"headgate", "headgate-proxy"} {
		r, _ := findRecipe(name)
		repository, _, _ := strings.Cut(r.reference, ":")
		r.name, r.target = "release-"+name, name
		r.reference = repository + ":" + tag
		r.dockerfile = filepath.Join(".cache", "source", tag, projectDockerfile)
		r.context = func(ctx context.Context, b Builder) (map[string]string, error) {
			out := b.cache("out", "headgate-"+tag)
			return map[string]string{"out/" + runtime.GOARCH + "/headgate": out}, b.goBuild(ctx, b.cache("source", tag), "./cmd/headgate", out)
		}
		recipes = append(recipes, r)
	}
	return recipes
}

// packageChart packages the chart of a source tree under a version that sorts before all others.
func (b Builder) packageChart(ctx context.Context, source, tag string) (string, error) {
	helm, err := b.Program(ctx, "helm")
	if err != nil {
		return "", err
	}
	// A part of a version that is all digits must not begin with 0, which a hash may.
	version := "0.0.0-g" + tag
	dir := b.cache("charts")
	err = run(exec.CommandContext(ctx, helm, "package", filepath.Join(source, "charts", "headgate"),
		"--version", version, "--app-version", tag, "--destination", dir))
	return filepath.Join(dir, "headgate-"+version+".tgz"), err
}
