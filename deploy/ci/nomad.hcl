# Nomad: what fails is followed by a session in the same allocation. Nobody
# triggers a batch job by a login: the meta key engineer names a GitHub user.
job "build" {
  type = "batch"
  meta {
    engineer = "octocat"
  }
  group "build" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts = 0
    }
    task "test" {
      driver = "docker"
      config {
        image   = "golang:1.26"
        command = "/bin/sh"
        args    = ["local/test.sh"]
      }
      env {
        CONVERGE_URL = "https://converge.example.com"
      }
      template {
        destination = "local/test.sh"
        data        = <<-CONVERGE
          make test || {
            code=$?
            f=agent-$(uname -s | tr A-Z a-z)-$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/') && a=$(mktemp) &&
              curl -fsSm 120 "$CONVERGE_URL/docs/SHA256SUMS" | sed -n "s|  $f$|  $a|p" > "$a.sum" && [ -s "$a.sum" ] &&
              curl -fsSm 120 -o "$a" "$CONVERGE_URL/docs/$f" &&
              $(command -v sha256sum || echo shasum -a 256) -c "$a.sum" && chmod 755 "$a" &&
              "$a" --github-user "$NOMAD_META_engineer" --expiry 20m --max-duration 1h \
                "$(echo "$CONVERGE_URL" | sed s/^http/ws/)/agent/$NOMAD_JOB_NAME/$NOMAD_SHORT_ALLOC_ID" ||
              echo "converge: no session" >&2
            exit $code
          }
        CONVERGE
      }
    }
  }
}
