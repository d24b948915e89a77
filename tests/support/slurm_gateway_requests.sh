# The seed's requests but those to a vector database, as written there but for the ids: GROUP_ID, SERVICE_ID and VLLM_ID
# stand for a group, a service and a service of vLLM.
curl -X POST http://localhost:8001/api/v1/services \
  -H "Content-Type: application/json" \
  -d '{
    "recipe_name": "inference/vllm-single-node"
  }'

curl -X POST http://localhost:8001/api/v1/services \
  -H "Content-Type: application/json" \
  -d '{
    "recipe_name": "inference/vllm-replicas"
  }'

curl -X POST http://localhost:8001/api/v1/services \
  -H "Content-Type: application/json" \
  -d '{
    "recipe_name": "inference/vllm-replicas",
    "config": {
      "resources": {
        "gpu": "4"
      },
      "gpu_per_replica": 2
    }
  }'

curl -X POST http://localhost:8001/api/v1/services \
  -H "Content-Type: application/json" \
  -d '{
    "recipe_name": "inference/vllm-single-node",
    "config": {
      "environment": {
        "VLLM_MODEL": "gpt2"
      }
    }
  }'

curl http://localhost:8001/api/v1/vllm/available-models

curl "http://localhost:8001/api/v1/vllm/search-models?query=qwen&limit=10"

curl http://localhost:8001/api/v1/vllm/model-info/Qwen/Qwen2.5-7B-Instruct

curl -X POST http://localhost:8001/api/v1/services \
  -H "Content-Type: application/json" \
  -d '{
    "recipe_name": "inference/vllm-single-node",
    "config": {
      "environment": {
        "VLLM_MODEL": "gpt2"
      },
      "resources": {
        "cpu": "8",
        "memory": "64G",
        "time_limit": 120,
        "gpu": "4"
      }
    }
  }'

curl -X POST http://localhost:8001/api/v1/services \
  -H "Content-Type: application/json" \
  -d '{
    "recipe_name": "inference/vllm-single-node",
    "config": {
      "environment": {
        "VLLM_MODEL": "gpt2",
        "VLLM_HOST": "0.0.0.0",
        "VLLM_PORT": "8001",
        "VLLM_MAX_MODEL_LEN": "2048",
        "VLLM_TENSOR_PARALLEL_SIZE": "4",
        "VLLM_GPU_MEMORY_UTILIZATION": "0.9",
        "CUDA_VISIBLE_DEVICES": "0"
      },
      "resources": {
        "cpu": "2",
        "memory": "32G",
        "time_limit": 15,
        "gpu": "4"
      }
    }
  }'

curl -X POST http://localhost:8001/api/v1/services \
  -H "Content-Type: application/json" \
  -d '{
    "recipe_name": "inference/vllm-single-node",
    "config": {
      "environment": {
        "VLLM_MODEL": "gpt2"
      },
      "resources": {
        "nodes": 1,
        "cpu": "4",
        "memory": "16G",
        "gpu": null
      }
    }
  }'

curl http://localhost:8001/api/v1/service-groups

curl http://localhost:8001/api/v1/service-groups/GROUP_ID

curl http://localhost:8001/api/v1/service-groups/GROUP_ID/status

curl -X POST http://localhost:8001/api/v1/service-groups/GROUP_ID/status \
  -H "Content-Type: application/json" \
  -d '{"status": "cancelled"}'

curl -X DELETE http://localhost:8001/api/v1/service-groups/GROUP_ID

curl http://localhost:8001/api/v1/services

curl http://localhost:8001/api/v1/services/SERVICE_ID

curl http://localhost:8001/api/v1/services/SERVICE_ID/status

curl http://localhost:8001/api/v1/services/SERVICE_ID/logs

curl -X POST http://localhost:8001/api/v1/services/SERVICE_ID/status \
  -H "Content-Type: application/json" \
  -d '{"status": "cancelled"}'

curl -X DELETE http://localhost:8001/api/v1/services/SERVICE_ID

curl http://localhost:8001/api/v1/vllm/services

curl http://localhost:8001/api/v1/vllm/VLLM_ID/models

curl -X POST http://localhost:8001/api/v1/vllm/VLLM_ID/prompt \
  -H "Content-Type: application/json" \
  -d '{
    "prompt": "Tell me a joke about programming",
    "max_tokens": 100
  }'

curl -X POST http://localhost:8001/api/v1/vllm/VLLM_ID/prompt \
  -H "Content-Type: application/json" \
  -d '{
    "prompt": "Write a short haiku about AI",
    "model": "gpt2",
    "max_tokens": 64,
    "temperature": 0.7
  }'

curl http://localhost:8001/api/v1/recipes

curl http://localhost:8001/api/v1/recipes/vllm-single-node

curl http://localhost:8001/api/v1/vllm/VLLM_ID/metrics
