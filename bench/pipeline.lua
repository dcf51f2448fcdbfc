-- For wrk: every write carries as many requests as `-- DEPTH` says; wrk counts each response.
function init(args)
  local depth = tonumber(args[1])
  local one = wrk.format()
  requests = string.rep(one, depth)
end

function request()
  return requests
end
