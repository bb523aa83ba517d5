-- Health of an R1PlusTenant for Argo CD, in the form of its resource_customizations.
local health = { status = "Progressing", message = "The operator has not processed the newest spec yet" }
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function report(name, condition)
  return { status = name, message = condition.reason .. ": " .. (condition.message or "") }
end
local stalled, reconciling, ready = conditions.Stalled, conditions.Reconciling, conditions.Ready
if stalled ~= nil and stalled.status == "True" then
  return report("Degraded", stalled)
end
if reconciling ~= nil and reconciling.status == "True" then
  return report("Progressing", reconciling)
end
if ready == nil then
  return health
end
if ready.status == "True" then
  return report("Healthy", ready)
end
return report("Progressing", ready)
