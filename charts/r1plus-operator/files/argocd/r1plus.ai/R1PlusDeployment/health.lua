-- Health of an R1PlusDeployment for Argo CD, in the form of its resource_customizations.
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
local stalled, reconciling = conditions.Stalled, conditions.Reconciling
if stalled ~= nil and stalled.status == "True" then
  return report("Degraded", stalled)
end
local progressing, ready = conditions.Progressing, conditions.Ready
if progressing ~= nil and progressing.reason == "Paused" then
  return report("Suspended", progressing)
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
if ready.reason == "ScaledToZero" then
  return report("Suspended", ready)
end
return report("Progressing", ready)
