package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// document is an SPDX 2.3 document (ISO/IEC 5962) in JSON, as far as it is used
// here: https://spdx.github.io/spdx-spec/v2.3/.
type document struct {
	SPDXVersion   string         `json:"spdxVersion"`
	DataLicense   string         `json:"dataLicense"`
	SPDXID        string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	CreationInfo  creationInfo   `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name             string        `json:"name"`
	SPDXID           string        `json:"SPDXID"`
	VersionInfo      string        `json:"versionInfo"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	PrimaryPurpose   string        `json:"primaryPackagePurpose,omitempty"`
	SourceInfo       string        `json:"sourceInfo,omitempty"`
	ExternalRefs     []externalRef `json:"externalRefs"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const (
	unknown    = "NOASSERTION"
	documentID = "SPDXRef-DOCUMENT"
)

// sbom writes what the programs, built for whatever systems, contain. It
// refuses programs that are not of the version, or not of one commit without
// changes, or that need a C library.
func sbom(w io.Writer, version string, when time.Time, files []string) error {
	programs, components, err := inspectAll(files)
	if err != nil {
		return err
	}
	doc := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: documentID,
		Name: "converge " + version,
		CreationInfo: creationInfo{
			Created:  when.Format(time.RFC3339),
			Creators: []string{"Organization: the Converge maintainers", "Tool: converge-release"},
		},
	}
	revision := ""
	var tools []string
	for i, p := range programs {
		settings := map[string]string{}
		for _, s := range p.info.Settings {
			settings[s.Key] = s.Value
		}
		switch {
		case p.info.Main.Version != version:
			return fmt.Errorf("%s is of version %q, want %s", files[i], p.info.Main.Version, version)
		case settings["vcs.modified"] != "false":
			return fmt.Errorf("%s was not built from a commit as it is", files[i])
		case settings["CGO_ENABLED"] != "0":
			return fmt.Errorf("%s was built with CGO_ENABLED=%s, want 0", files[i], settings["CGO_ENABLED"])
		case revision != "" && revision != settings["vcs.revision"]:
			return fmt.Errorf("%s is of commit %s, the others of %s", files[i], settings["vcs.revision"], revision)
		}
		revision = settings["vcs.revision"]
		id := spdxID(p.path, version)
		if !slices.Contains(tools, p.name) {
			tools = append(tools, p.name)
			doc.Namespace = "https://" + path.Dir(p.path) + "/spdx/" + version + "-" + revision
			doc.Packages = append(doc.Packages, spdxPackage{
				Name: "converge-" + p.name, SPDXID: id, VersionInfo: version, DownloadLocation: unknown,
				LicenseConcluded: unknown, LicenseDeclared: "Apache-2.0", CopyrightText: unknown,
				PrimaryPurpose: "APPLICATION", SourceInfo: "commit " + revision,
				ExternalRefs: []externalRef{purl(p.path, version)},
			})
			doc.Relationships = append(doc.Relationships, relationship{documentID, "DESCRIBES", id})
		}
		for _, c := range p.components {
			r := relationship{id, "DEPENDS_ON", spdxID(c.path, c.version)}
			if !slices.Contains(doc.Relationships, r) {
				doc.Relationships = append(doc.Relationships, r)
			}
		}
	}
	for _, c := range components {
		text, err := licenseText(c)
		if err != nil {
			return err
		}
		p := spdxPackage{
			Name: c.path, SPDXID: spdxID(c.path, c.version), VersionInfo: c.version, DownloadLocation: unknown,
			LicenseConcluded: unknown, LicenseDeclared: licenseName(text), CopyrightText: unknown,
			PrimaryPurpose: "LIBRARY", ExternalRefs: []externalRef{purl(c.path, c.version)},
		}
		if c.sum != "" {
			p.SourceInfo = "checksum of the module in go.sum: " + c.sum
		}
		doc.Packages = append(doc.Packages, p)
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(out, '\n'))
	return err
}

// purl is how vulnerability scanners know a Go module, by
// https://github.com/package-url/purl-spec.
func purl(module, version string) externalRef {
	return externalRef{"PACKAGE-MANAGER", "purl", "pkg:golang/" + module + "@" + strings.ReplaceAll(version, "+", "%2B")}
}

// spdxID makes an identifier of letters, digits, dots and dashes.
func spdxID(module, version string) string {
	return "SPDXRef-" + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.':
			return r
		}
		return '-'
	}, module+"-"+version)
}
