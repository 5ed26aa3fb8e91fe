// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVersionIsThatOfTheModule(t *testing.T) {
	for minor, version := range kubernetesVersions {
		t.Run(minor, func(t *testing.T) {
			p, err := kubernetes(minor)
			if err != nil {
				t.Fatal(err)
			}
			module, err := os.ReadFile(filepath.Join("..", "..", p.module, cmp.Or(p.modfile, "go.mod")))
			if err != nil {
				t.Fatal(err)
			}
			if want := "k8s.io/kubernetes " + version + "\n"; !strings.HasPrefix(version, "v"+minor+".") || !strings.Contains(string(module), want) {
				t.Errorf("the module doesn't require %s", want)
			}
			staging := "v0" + strings.TrimPrefix(version, "v1")
			for line := range strings.Lines(string(module)) {
				name, replacement, replaced := strings.Cut(strings.TrimSpace(line), " => ")
				if replaced && replacement != name+" "+staging {
					t.Errorf("%s is replaced by %q, want version %s", name, replacement, staging)
				}
			}
		})
	}
}

func TestUnknownVersionNamesThoseThatAreKnown(t *testing.T) {
	_, err := Builder{}.Kubernetes(t.Context(), "1.29")
	if err == nil || !strings.Contains(err.Error(), "1.30, 1.34, 1.36") {
		t.Errorf("got %v, want an error with the known versions", err)
	}
}

func TestParseLdd(t *testing.T) {
	text := "\tlinux-vdso.so.1 (0x00007efd83cd5000)\n" +
		"\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007efd7cb20000)\n" +
		"\tlibmissing.so => not found\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007efd83cd7000)\n"
	want := []string{"/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"}
	if got := parseLdd(text); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHashRecipeChangesWithWhatGoesIn(t *testing.T) {
	b := Builder{Repo: t.TempDir()}
	dockerfile, binary := filepath.Join(b.Repo, "Dockerfile"), filepath.Join(b.Repo, "binary")
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(dockerfile, "FROM scratch")
	write(binary, "one")
	r := recipe{name: "app", reference: "example/app:v1", dockerfile: "Dockerfile"}
	files, args := map[string]string{"app": binary, "tmp/": ""}, map[string]string{"BASE": "scratch"}
	hash := func() string {
		t.Helper()
		sum, err := b.hashRecipe(r, files, args)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	seen := []string{hash()}
	if again := hash(); again != seen[0] {
		t.Fatalf("the same inputs gave %s and %s", seen[0], again)
	}
	for _, change := range []struct {
		what string
		make func()
	}{
		{"the binary", func() { write(binary, "two") }},
		{"the Dockerfile", func() { write(dockerfile, "FROM scratch\nUSER 1") }},
		{"a build argument", func() { args["BASE"] = "other" }},
		{"a path in the context", func() { files = map[string]string{"bin/app": binary, "tmp/": ""} }},
		{"the reference", func() { r.reference = "example/app:v2" }},
	} {
		change.make()
		if sum := hash(); slices.Contains(seen, sum) {
			t.Errorf("%s changed and the sum didn't", change.what)
		} else {
			seen = append(seen, sum)
		}
	}
}

func TestEveryListedImageHasARecipe(t *testing.T) {
	for _, name := range slices.Concat(OwnImages, ProjectImages) {
		if _, ok := findRecipe(name); !ok {
			t.Errorf("there is no recipe for image %q", name)
		}
	}
	for _, r := range recipes {
		for _, base := range r.bases {
			if _, ok := findRecipe(base); !ok && base != "scratch" {
				t.Errorf("image %q: there is no recipe for its base %q", r.name, base)
			}
		}
	}
}
