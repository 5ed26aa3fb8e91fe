// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Image is an image in the cache, ready to be imported.
type Image struct {
	Name string
	// Reference is what the archive calls it.
	Reference string
	Archive   string
	// Hash is that of everything it was made from.
	Hash string
}

// recipe is what an image is made from.
type recipe struct {
	name       string
	target     string // stage of the Dockerfile; empty: the name
	reference  string
	dockerfile string // below the repository
	// context gathers the files that the Dockerfile copies: source by path in the context.
	// A path that ends in a slash is an empty folder.
	context func(context.Context, Builder) (map[string]string, error)
	// bases are build arguments that replace base images: an image of the cache, or scratch.
	bases map[string]string
	args  map[string]string
}

// Image builds one image unless the cache has it.
func (b Builder) Image(ctx context.Context, name string) (Image, error) {
	r, ok := findRecipe(name)
	if !ok {
		return Image{}, fmt.Errorf("unknown image %q, want one of %s", name, strings.Join(ImageNames(), ", "))
	}
	return b.image(ctx, r)
}

func (b Builder) image(ctx context.Context, r recipe) (Image, error) {
	unlock, err := b.lock("image-" + r.name)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	files, err := r.context(ctx, b)
	if err != nil {
		return Image{}, fmt.Errorf("gathering the files of image %q: %w", r.name, err)
	}
	args := maps.Clone(r.args)
	if args == nil {
		args = map[string]string{}
	}
	for argument, base := range r.bases {
		if args[argument], err = b.base(ctx, base); err != nil {
			return Image{}, err
		}
	}
	hash, err := b.hashRecipe(r, files, args)
	if err != nil {
		return Image{}, err
	}
	image := Image{
		Name: r.name, Reference: r.reference, Hash: hash,
		Archive: b.cache("images", r.name+"-"+hash[:12]+".tar"),
	}
	if _, err := os.Stat(image.Archive); err == nil {
		return image, nil
	}
	return image, b.bud(ctx, r, files, args, image)
}

// base returns what a base image is called in buildah's storage, into which it is put first.
func (b Builder) base(ctx context.Context, name string) (string, error) {
	if name == "scratch" {
		return name, nil
	}
	image, err := b.Image(ctx, name)
	if err != nil {
		return "", err
	}
	unlock, err := b.lock("image-" + name)
	if err != nil {
		return "", err
	}
	defer unlock()
	stored := "localhost/" + name + ":" + image.Hash[:12]
	if b.buildah(ctx, "inspect", "--type", "image", stored).Run() == nil {
		return stored, nil
	}
	if err := run(b.buildah(ctx, "pull", "-q", "docker-archive:"+image.Archive)); err != nil {
		return "", err
	}
	if err := run(b.buildah(ctx, "tag", image.Reference, stored)); err != nil {
		return "", err
	}
	b.forgetBases(ctx, name, stored)
	return stored, nil
}

// bud builds an image and writes its archive, whole or not at all.
func (b Builder) bud(ctx context.Context, r recipe, files, args map[string]string, image Image) (err error) {
	step := b.Log.Start("building image "+image.Reference, "")
	defer func() { step.Done(err) }()
	if err := os.MkdirAll(b.cache("images"), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.cache("images"), r.name+".building-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for path, source := range files {
		if err := place(source, filepath.Join(dir, "context", path), strings.HasSuffix(path, "/")); err != nil {
			return err
		}
	}
	idFile, archive := filepath.Join(dir, "id"), filepath.Join(dir, "archive")
	bud := []string{
		"bud", "-q", "--isolation", "chroot", "--pull-never", "--timestamp", "0", "--target", cmp.Or(r.target, r.name),
		"-f", filepath.Join(b.Repo, r.dockerfile), "--iidfile", idFile,
	}
	for _, name := range slices.Sorted(maps.Keys(args)) {
		bud = append(bud, "--build-arg", name+"="+args[name])
	}
	if err := run(b.buildah(ctx, append(bud, filepath.Join(dir, "context"))...)); err != nil {
		return err
	}
	// Without a name in the storage the archive's is its only one.
	id, err := os.ReadFile(idFile)
	if err != nil {
		return err
	}
	defer func() { _ = b.buildah(context.WithoutCancel(ctx), "rmi", string(id)).Run() }()
	if err := run(b.buildah(ctx, "push", "-q", string(id), "docker-archive:"+archive+":"+image.Reference)); err != nil {
		return err
	}
	old, err := filepath.Glob(b.cache("images", r.name+"-????????????.tar"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.Rename(archive, image.Archive)
}

// forgetBases removes earlier versions of a base image. Failing to is a waste of space, no more.
func (b Builder) forgetBases(ctx context.Context, name, keep string) {
	out, _ := b.buildah(ctx, "images", "--format", "{{.Name}}:{{.Tag}}").Output()
	for stored := range strings.Lines(string(out)) {
		stored = strings.TrimSpace(stored)
		if strings.HasPrefix(stored, "localhost/"+name+":") && stored != keep {
			_ = b.buildah(ctx, "rmi", stored).Run()
		}
	}
}

// buildah keeps to a storage of its own. The driver vfs copies where others mount: slower, but
// it works in containers and leaves no mounts.
func (b Builder) buildah(ctx context.Context, args ...string) *exec.Cmd {
	storage := []string{"--root", b.cache("buildah"), "--runroot", b.cache("buildah", "run"), "--storage-driver", "vfs"}
	return exec.CommandContext(ctx, "buildah", append(storage, args...)...)
}

// hashRecipe sums up everything an image depends on.
func (b Builder) hashRecipe(r recipe, files, args map[string]string) (string, error) {
	sum := sha256.New()
	dockerfile, err := hashFile(filepath.Join(b.Repo, r.dockerfile))
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprintln(sum, r.name, r.reference, dockerfile)
	for _, name := range slices.Sorted(maps.Keys(args)) {
		_, _ = fmt.Fprintln(sum, "arg", name, args[name])
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		var content string
		if !strings.HasSuffix(path, "/") {
			if content, err = hashFile(files[path]); err != nil {
				return "", err
			}
		}
		_, _ = fmt.Fprintln(sum, "file", path, content)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func hashFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", fmt.Errorf("reading %q: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// place copies a file into the context of a build, or makes a folder.
func place(source, target string, folder bool) error {
	if folder {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
