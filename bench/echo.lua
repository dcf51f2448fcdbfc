-- For wrk: POST with a body of so many bytes as `-- SIZE` says.
function init(args)
  wrk.method = "POST"
  wrk.body = string.rep("x", tonumber(args[1]))
  wrk.headers["Content-Type"] = "application/octet-stream"
end
