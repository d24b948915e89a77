"""Which architectures vLLM serves, read from the registry of models in vLLM 0.33.0.

The names are those of ``architectures`` in a model's ``config.json``. A later vLLM knows more, an earlier one fewer;
what its registry does not name it may still run through transformers, more slowly, or not at all.
"""

from __future__ import annotations

#: Whose registry this is.
VLLM_VERSION = "0.33.0"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: They make text from text.
TEXT_GENERATION = _names(
    """
    AfmoeForCausalLM AliceAIForCausalLM ApertusForCausalLM ArceeForCausalLM AXK1ForCausalLM
    BailingMoeForCausalLM BailingMoeV2_5ForCausalLM BailingMoeV2ForCausalLM BailingMoeV3ForCausalLM
    BeamForCausalLM BloomForCausalLM ChatGLMForConditionalGeneration ChatGLMModel Cohere2ForCausalLM
    Cohere2MoeForCausalLM CohereForCausalLM CwmForCausalLM DbrxForCausalLM DeciLMForCausalLM DeepseekForCausalLM
    DeepseekV2ForCausalLM DeepseekV32ForCausalLM DeepseekV3ForCausalLM DeepseekV4ForCausalLM
    DomynEdgeForCausalLM DoryForCausalLM Ernie4_5_MoeForCausalLM Ernie4_5ForCausalLM Exaone4ForCausalLM
    ExaoneForCausalLM ExaoneMoEForCausalLM ExaoneMoeForCausalLM FalconForCausalLM FalconH1ForCausalLM
    FalconMambaForCausalLM FlexOlmoForCausalLM FlintForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM
    Gemma3nForCausalLM Gemma4ForCausalLM GemmaForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM
    Glm4MoeLiteForCausalLM Glm5NextForCausalLM GlmForCausalLM GlmMoeDsaForCausalLM GPT2LMHeadModel
    GPTBigCodeForCausalLM GPTJForCausalLM GPTNeoXForCausalLM GptOssForCausalLM GraniteForCausalLM
    GraniteMoeForCausalLM GraniteMoeHybridForCausalLM GraniteMoeSharedForCausalLM GraniteMoeSWAForCausalLM
    GraniteSWAForCausalLM HCXVisionV2ForCausalLM HrmTextForCausalLM HunYuanDenseV1ForCausalLM
    HunYuanMoEV1ForCausalLM HyperCLOVAXForCausalLM HYV3ForCausalLM HYV4ForCausalLM InklingForCausalLM
    InklingForConditionalGeneration InternLM2ForCausalLM InternLM3ForCausalLM IQuestCoderForCausalLM
    IQuestLoopCoderForCausalLM Jais2ForCausalLM JambaForCausalLM K2HorizonForCausalLM KimiLinearForCausalLM
    Kolibri1ForCausalLM LagunaForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM Llama4ForCausalLM LlamaForCausalLM
    LLaMAForCausalLM LongcatFlashForCausalLM LongcatFlashNgramForCausalLM Mamba2ForCausalLM MambaForCausalLM
    MellumForCausalLM MiMoForCausalLM MiMoV2FlashForCausalLM MiMoV2ForCausalLM MiniCPM3ForCausalLM
    MiniCPMForCausalLM MiniMaxM2ForCausalLM MiniMaxM3SparseForCausalLM Ministral3ForCausalLM MistralForCausalLM
    MistralLarge3ForCausalLM MixtralForCausalLM MuseGlimmerForCausalLM NanbeigeForCausalLM NemotronForCausalLM
    NemotronHForCausalLM NemotronHPuzzleForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoeForCausalLM
    OlmoForCausalLM OlmoHybridForCausalLM OPTForCausalLM OrionForCausalLM PanguEmbeddedForCausalLM
    PanguProMoEV2ForCausalLM PanguUltraMoEForCausalLM Param2MoEForCausalLM Phi3ForCausalLM PhiForCausalLM
    PhiMoEForCausalLM Plamo3ForCausalLM Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen3_5ForCausalLM
    Qwen3_5MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM Qwen3NextForCausalLM Qwen4ExpForCausalLM
    Rnj1ForCausalLM SarvamMLAForCausalLM SarvamMoEForCausalLM SeedOssForCausalLM SmolLM3ForCausalLM
    SolarForCausalLM StableLmForCausalLM Starcoder2ForCausalLM Step1ForCausalLM Step3p5ForCausalLM
    Step3TextForCausalLM Step5ForCausalLM TeleChat2ForCausalLM TeleChat3ForCausalLM TeleFLMForCausalLM
    VaultGemmaForCausalLM Zamba2ForCausalLM
    """
)
#: They make text, from images, sound or video too.
MULTIMODAL = _names(
    """
    Alpamayo2Super AriaForConditionalGeneration AudioFlamingo3ForConditionalGeneration
    BagelForConditionalGeneration BailingMoeV3VLForConditionalGeneration BeeForConditionalGeneration
    Blip2ForConditionalGeneration Cohere2VisionForConditionalGeneration CohereAsrForConditionalGeneration
    CohereCompassForConditionalGeneration Cosmos3EdgeForConditionalGeneration Cosmos3ForConditionalGeneration
    DeepseekOCR2ForCausalLM DeepseekOCRForCausalLM DeepseekV41ForCausalLM DeepseekV4ForConditionalGeneration
    DeepseekVLV2ForCausalLM DiffusionGemmaForBlockDiffusion Dots3NoteForCausalLM DotsOCRForCausalLM
    Eagle2_5_VLForConditionalGeneration Emu3ForConditionalGeneration Ernie4_5_VLMoeForConditionalGeneration
    Exaone4_5_ForConditionalGeneration FireRedASR2ForConditionalGeneration FunASRForConditionalGeneration
    FunAudioChatForConditionalGeneration Gemma3ForConditionalGeneration Gemma3nForConditionalGeneration
    Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration GLM4VForCausalLM
    Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration Glm5NextForConditionalGeneration
    GlmAsrForConditionalGeneration GlmOcrForConditionalGeneration Granite4VisionForConditionalGeneration
    GraniteSpeechForConditionalGeneration GraniteSpeechPlusForConditionalGeneration H2OVLChatModel HfMoondream
    HunYuanVLForConditionalGeneration Idefics3ForConditionalGeneration InternS1ForConditionalGeneration
    InternS1ProForConditionalGeneration InternS2MobiusForConditionalGeneration
    InternS2PreviewForConditionalGeneration InternVLChatModel InternVLForConditionalGeneration
    IsaacForConditionalGeneration KananaVForConditionalGeneration KeyeForConditionalGeneration
    KeyeVL1_5ForConditionalGeneration KimiK25ForConditionalGeneration KimiK3ForConditionalGeneration
    KimiVLForConditionalGeneration Lfm2VlForConditionalGeneration LightOnOCRForConditionalGeneration
    Llama4ForConditionalGeneration Llama_Nemotron_Nano_VL LlavaForConditionalGeneration
    LlavaNextForConditionalGeneration LlavaNextVideoForConditionalGeneration
    LlavaOnevision2ForConditionalGeneration LlavaOnevisionForConditionalGeneration MiDashengLMModel
    MiMoV2OmniForCausalLM MiniCPMO MiniCPMOcrForConditionalGeneration MiniCPMV
    MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration
    MiniMaxM3SparseForConditionalGeneration Mistral3ForConditionalGeneration Molmo2ForConditionalGeneration
    MolmoForCausalLM Moondream3ForCausalLM MoonshotKimiaForCausalLM MossAudioModel
    MossTranscribeDiarizeForConditionalGeneration MuseGlimmerForConditionalGeneration
    MuseSparkForConditionalGeneration NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2
    NemotronH_Omni_Reasoning_V3 NemotronH_Super_Omni_Reasoning_V3 NemotronParseForConditionalGeneration NVLM_D
    OpenCUAForConditionalGeneration OpenPanguVLForConditionalGeneration OpenVLAForActionPrediction Ovis Ovis2_5
    Ovis2_6_MoeForCausalLM Ovis2_6ForCausalLM PaddleOCRVLForConditionalGeneration
    PaliGemmaForConditionalGeneration Phi3VForCausalLM Phi4ForCausalLMV Phi4MMForCausalLM
    PixtralForConditionalGeneration QianfanOCRForConditionalGeneration Qwen2_5_VLForConditionalGeneration
    Qwen2_5OmniForConditionalGeneration Qwen2_5OmniModel Qwen2AudioForConditionalGeneration
    Qwen2VLForConditionalGeneration Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration
    Qwen3ASRForConditionalGeneration Qwen3ASRRealtimeGeneration Qwen3OmniMoeForConditionalGeneration
    Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen4ExpForConditionalGeneration
    RadioMBartPrefixForCausalLM RForConditionalGeneration SkyworkR1VChatModel SmolVLMForConditionalGeneration
    Step3p7ForConditionalGeneration Step3VLForConditionalGeneration Step5ForConditionalGeneration
    StepVLForConditionalGeneration UltravoxModel UnlimitedOCRForCausalLM VibeVoiceAsrForConditionalGeneration
    VoxtralForConditionalGeneration VoxtralRealtimeGeneration WhisperForConditionalGeneration
    """
)
#: They make vectors, scores or labels (``runner: pooling``), and answer no prompt.
POOLING = _names(
    """
    BertForMaskedLM BertForSequenceClassification BertForTokenClassification BertModel
    BertSpladeSparseEmbeddingModel BgeM3EmbeddingModel ClefFlashForJointSchema ClefOmniForJointSchema CLIPModel
    ColBERTJinaRobertaModel ColBERTLfm2Model ColBERTModernBertModel ColModernVBertForRetrieval
    ColPaliForRetrieval ColQwen3 ColQwen3_5 ColUltraVBertForRetrieval D3ForSequenceClassification
    DeepseekV3BidirectionalModel EmbeddingGemma2Model Gemma2Model Gemma3TextModel GPT2ForSequenceClassification
    GteModel GteNewForSequenceClassification GteNewModel HF_ColBERT InternLM2ForRewardModel
    JambaForSequenceClassification JinaEmbeddingsV5Model JinaForRanking JinaVLForRanking Lfm2BidirectionalModel
    LlamaBidirectionalForSequenceClassification LlamaBidirectionalModel LlamaModel
    LlamaNemotronVLForSequenceClassification LlamaNemotronVLModel MistralModel
    ModernBertForSequenceClassification ModernBertForTokenClassification ModernBertModel ModernVBertModel
    NomicBertModel OpenAIPrivacyFilterForTokenClassification OpsColQwen3Model Qwen2ForProcessRewardModel
    Qwen2ForRewardModel Qwen2Model Qwen3ASRForcedAlignerForTokenClassification Qwen3VLNemotronEmbedModel
    RobertaForMaskedLM RobertaForSequenceClassification RobertaForTokenClassification RobertaModel SiglipModel
    Terratorch VoyageQwen3BidirectionalEmbedModel XLMRobertaForSequenceClassification
    XLMRobertaForTokenClassification XLMRobertaModel
    """
)
#: What it once served, and the last version that did.
DROPPED = {
    "AquilaForCausalLM": "0.24.0",
    "AquilaModel": "0.24.0",
    "ArcticForCausalLM": "0.28.0",
    "AyaVisionForConditionalGeneration": "0.24.0",
    "BaiChuanForCausalLM": "0.23.0",
    "BaichuanForCausalLM": "0.23.0",
    "BambaForCausalLM": "0.23.0",
    "ChameleonForConditionalGeneration": "0.28.0",
    "Cheers": "0.28.0",
    "CheersForConditionalGeneration": "0.28.0",
    "DonutForConditionalGeneration": "0.10.2",
    "Dots1ForCausalLM": "0.23.0",
    "ErnieForSequenceClassification": "0.23.0",
    "ErnieForTokenClassification": "0.23.0",
    "ErnieModel": "0.23.0",
    "Fairseq2LlamaForCausalLM": "0.28.0",
    "FireRedLIDForConditionalGeneration": "0.28.0",
    "FuyuForCausalLM": "0.25.0",
    "GritLM": "0.28.0",
    "Grok1ForCausalLM": "0.24.0",
    "Grok1ModelForCausalLM": "0.24.0",
    "HCXVisionForCausalLM": "0.28.0",
    "InternLM2VEForCausalLM": "0.23.0",
    "InternLMForCausalLM": "0.23.0",
    "JAISLMHeadModel": "0.22.0",
    "MPTForCausalLM": "0.28.0",
    "MantisForConditionalGeneration": "0.24.0",
    "MiniMaxForCausalLM": "0.23.0",
    "MiniMaxM1ForCausalLM": "0.23.0",
    "MiniMaxText01ForCausalLM": "0.23.0",
    "MiniMaxVL01ForConditionalGeneration": "0.23.0",
    "MllamaForConditionalGeneration": "0.10.2",
    "MotifForCausalLM": "0.10.2",
    "MptForCausalLM": "0.28.0",
    "MusicFlamingoForConditionalGeneration": "0.24.0",
    "OuroForCausalLM": "0.26.0",
    "PersimmonForCausalLM": "0.25.0",
    "Phi3SmallForCausalLM": "0.9.2",
    "Phi4FlashForCausalLM": "0.10.2",
    "Phi4MultimodalForCausalLM": "0.12.0",
    "Plamo2ForCausalLM": "0.26.0",
    "PrithviGeoSpatialMAE": "0.28.0",
    "QWenLMHeadModel": "0.23.0",
    "QwenVLForConditionalGeneration": "0.23.0",
    "RWForCausalLM": "0.28.0",
    "StableLMEpochForCausalLM": "0.28.0",
    "Tarsier2ForConditionalGeneration": "0.23.0",
    "TarsierForConditionalGeneration": "0.24.0",
    "TeleChatForCausalLM": "0.25.0",
    "XverseForCausalLM": "0.23.0",
}
